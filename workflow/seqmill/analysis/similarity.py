"""The rows of a database that are most alike to each query: by the cosine, exactly, a block of either at a time.

A matrix product in float32 finds the candidates of a block; those that can still be among the k best are scored once more,
in float64 from the values as stored. From the rounding errors that a product can have follows what a row that was no
candidate scores at most. Queries for which that is not less than their k-th best are searched once more by products in
float64. Similarities are float32; of equal ones the row that comes first is the better one.
"""

import torch

# A row is searched for its best entries by the maxima of so many neighbours.
GROUP = 32
# What scores nothing, and 2**32 - 1, the last place there can be.
NOTHING, LAST = float("-inf"), 2**32 - 1
UNIT_ROUNDOFF = 2.0**-24
# Sequences scored at a time in float64, as bytes.
PAIR_BYTES = 256 * 2**20


class Search:
    """Looks for the k best rows of a database, whose blocks are added one by one, for each of Q queries.

    Args:
        queries: (Q, width) float32, as stored.
        own: (Q,) int64, the row that each query is itself, which it does not find; -1 for none.
        k: how many to find.
        double: score by products in float64 alone.
        at_once: queries that are scored at a time.
    """

    def __init__(self, queries: torch.Tensor, own: torch.Tensor, k: int, double: bool = False, at_once: int = 4096):
        self.queries, self.own, self.k, self.double, self.at_once = queries, own, k, double, at_once
        self.inverse = _inverse_norms(queries)
        self.nothing = keys(queries.new_full((1,), NOTHING), own.new_full((1,), LAST))
        self.best = self.nothing.repeat(len(queries), k)
        # The most that a row which was no candidate can score.
        self.missed = queries.new_full((len(queries),), NOTHING)
        # A dot product of unit vectors in float32, in any order of the terms, and what their rounding adds.
        self.error = (queries.shape[1] + 8) * UNIT_ROUNDOFF
        # With so many of each block hardly a query is searched twice.
        self.candidates = k if double else 2 * k + GROUP

    def add(self, rows: torch.Tensor, values: torch.Tensor) -> None:
        """Search a block of the database.

        Args:
            rows: (M,) int64, ascending, and greater than those of earlier blocks.
            values: (M, width) float32, as stored.
        """
        if not len(rows):
            return
        inverse = _inverse_norms(values)
        unit = self._unit(values, inverse)
        # A whole number of groups.
        unit = torch.nn.functional.pad(unit, (0, 0, 0, -len(rows) % GROUP))
        for start in range(0, len(self.queries), self.at_once):
            part = slice(start, start + self.at_once)
            scores = self._products(part, unit)
            scores[:, len(rows) :] = NOTHING
            self._leave_out_own(scores, self.own[part], rows)
            approximate, columns = best(scores, min(self.candidates, len(rows)))
            if self.double:
                found = torch.where(approximate > NOTHING, keys(approximate, rows[columns]), self.nothing)
            else:
                found = self._scored(part, approximate, columns, rows, values, inverse)
                if len(rows) > self.candidates:
                    # NOTHING stays NOTHING: all there are were candidates.
                    self.missed[part] = torch.maximum(self.missed[part], approximate[:, -1] + self.error)
            self.best[part] = torch.cat([self.best[part], found], dim=1).topk(self.k).values

    def uncertain(self) -> torch.Tensor:
        """The numbers of the queries for which a row that was no candidate might be among the best."""
        least, _ = parts(self.best[:, -1])
        return ((self.missed > NOTHING) & (self.missed >= least)).nonzero()[:, 0]

    def _unit(self, values: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
        """Vectors of length 1, or 0, in the dtype of the products."""
        unit = values.double() * inverse[:, None]
        return unit if self.double else unit.float()

    def _products(self, part: slice, unit: torch.Tensor) -> torch.Tensor:
        return (self._unit(self.queries[part], self.inverse[part]) @ unit.T).float()

    @staticmethod
    def _leave_out_own(scores: torch.Tensor, own: torch.Tensor, rows: torch.Tensor) -> None:
        columns = torch.searchsorted(rows, own).clamp_(max=len(rows) - 1)
        among = (rows[columns] == own).nonzero()[:, 0]
        scores[among, columns[among]] = NOTHING

    def _scored(
        self,
        part: slice,
        approximate: torch.Tensor,
        columns: torch.Tensor,
        rows: torch.Tensor,
        values: torch.Tensor,
        inverse: torch.Tensor,
    ) -> torch.Tensor:
        """The keys of the candidates that can be among the best."""
        least, _ = parts(self.best[part, -1:])
        number, rank = ((approximate > NOTHING) & (approximate + self.error >= least)).nonzero(as_tuple=True)
        column = columns[number, rank]
        queries, lengths = self.queries[part], self.inverse[part]
        exact = values.new_empty(len(number))
        step = max(PAIR_BYTES // (values.shape[1] * 32), 1)
        for first in range(0, len(number), step):
            q, c = number[first : first + step], column[first : first + step]
            dots = (queries[q].double() * values[c].double()).sum(dim=1)
            exact[first : first + step] = (dots * lengths[q] * inverse[c]).float()
        found = self.nothing.repeat(approximate.shape)
        found[number, rank] = keys(exact, rows[column])
        return found


def keys(scores: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """int64 numbers that ascend with the float32 scores, and where these are equal descend with the places, below 2**32."""
    # Of 0.0 and -0.0 both are 0.0 now.
    bits = (scores + 0.0).view(torch.int32)
    ascending = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return ascending * 2**32 + (LAST - places)


def parts(keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The float32 scores and the int64 places of `keys`."""
    ascending = (keys >> 32).int()
    return torch.where(ascending < 0, ascending ^ 0x7FFFFFFF, ascending).view(torch.float32), LAST - (keys & LAST)


def best(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The best entries of each row, the best first, of equal ones the leftmost.

    The best `count` are in the `count` groups with the best maxima, of equal ones the leftmost: an entry of another group
    has in each of these one that is better than itself. So only the maxima and these groups are sorted.

    Args:
        scores: (R, M) float32, M a multiple of GROUP.

    Returns:
        (R, count) float32 scores and (R, count) int64 columns.
    """
    places = torch.arange(scores.shape[1], device=scores.device)
    if scores.shape[1] <= GROUP * count:
        return parts(keys(scores, places).topk(count).values)
    maxima = scores.view(len(scores), -1, GROUP).amax(dim=2)
    _, groups = parts(keys(maxima, places[: maxima.shape[1]]).topk(count).values)
    columns = (groups[:, :, None] * GROUP + places[:GROUP]).view(len(scores), -1)
    return parts(keys(scores.gather(1, columns), columns).topk(count).values)


def _inverse_norms(values: torch.Tensor) -> torch.Tensor:
    """(R,) float64, 1 / length of each vector; 0 for those of length 0, whose similarity is then 0 to all."""
    norms = torch.linalg.vector_norm(values, dim=1, dtype=torch.float64)
    return torch.where(norms > 0, 1 / norms, 0.0)
