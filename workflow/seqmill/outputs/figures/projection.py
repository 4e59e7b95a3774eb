"""From vectors to points in a plane: principal components, and UMAP where it is installed."""

import logging
import warnings
from dataclasses import dataclass

import numpy as np

from seqmill.outputs.figures.style import NotDrawn
from seqmill.outputs.figures.vectors import SEED

log = logging.getLogger(__name__)

# UMAP takes about a minute for so many vectors, and of so many principal components it sees what matters.
UMAP_ROWS, UMAP_COMPONENTS, UMAP_NEIGHBOURS = 10_000, 50, 15
# For fewer sequences neighbours mean little.
UMAP_FROM = 50


@dataclass(frozen=True)
class Plane:
    """Points of some vectors.

    Attributes:
        method: what made them, for a title.
        places: (P,) which vectors they are of.
        points: (P, 2).
        axes: what the two coordinates are.
    """

    method: str
    places: np.ndarray
    points: np.ndarray
    axes: tuple[str, str]


def project(values: np.ndarray) -> list[Plane]:
    """The planes that can be made of (S, width) float32 vectors.

    Raises:
        NotDrawn: there are too few vectors, or all are the same.
    """
    if len(values) < 3:
        raise NotDrawn(f"a map needs three sequences at least, and the result has {len(values)}")
    if values.shape[1] < 2:
        raise NotDrawn("an embedding of one value has no map")
    if (values == values[0]).all():
        raise NotDrawn("all sequences have the same embedding")
    UMAP = _umap() if len(values) >= UMAP_FROM else None
    components, shares = _principal(values, UMAP_COMPONENTS if UMAP else 2)
    axes = tuple(
        f"component {n + 1} ({share:.1%} of the variance)".replace("%", " %") for n, share in enumerate(shares[:2])
    )
    planes = [Plane("Principal components", np.arange(len(values)), components[:, :2], axes)]
    if UMAP:
        planes.append(_neighbourhoods(UMAP, components))
    return planes


def _principal(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(S, count) principal components and (count,) their shares of the variance; fewer where there are no more."""
    # Only here: importing it takes a second.
    from sklearn.decomposition import PCA

    pca = PCA(min(count, *values.shape), random_state=SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        components = pca.fit_transform(values)
    return components, np.nan_to_num(pca.explained_variance_ratio_)


def _umap():
    """The class of umap-learn; None where it is not installed, or does not work with what is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from umap import UMAP
    except Exception as error:
        # Numba, which it needs, refuses newer versions of NumPy by several kinds of exceptions.
        if not isinstance(error, ModuleNotFoundError):
            log.warning("umap-learn is installed but does not work here (%s): the map has no UMAP", error)
        return None
    return UMAP


def _neighbourhoods(UMAP, components: np.ndarray) -> Plane:
    places = np.sort(np.random.default_rng(SEED).permutation(len(components))[:UMAP_ROWS])
    # With a seed it uses one core anyway, and would warn of that.
    umap = UMAP(n_neighbors=UMAP_NEIGHBOURS, random_state=SEED, n_jobs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        points = umap.fit_transform(components[places])
    return Plane("UMAP", places, np.asarray(points), ("UMAP 1 (no unit)", "UMAP 2 (no unit)"))
