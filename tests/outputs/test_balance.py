"""What check tells of the time that shards were predicted to take."""

import damage
import pytest

from seqmill.outputs import balance, meta


def shard(cost, seconds, device="H100"):
    return {"device": device, "timings": {"steady_s": seconds}, **({} if cost is None else {"predicted_cost": cost})}


def test_the_time_of_all_is_shared_out_by_the_predicted_cost():
    table = balance.seconds([shard(100, 10.0), shard(300, 50.0)])
    assert table["predicted_s"].tolist() == [15, 45]
    assert table["measured_s"].tolist() == [10, 50]


def test_a_slower_device_is_no_error_of_the_prediction():
    table = balance.seconds([shard(100, 10.0), shard(100, 30.0, "L4"), shard(200, 20.0), shard(50, 15.0, "L4")])
    assert table["predicted_s"].tolist() == table["measured_s"].tolist() == [10, 30, 20, 15]


def test_shards_of_a_version_that_recorded_no_cost_are_left_empty():
    table = balance.seconds([shard(None, 10.0), shard(1, 3.0), shard(2, 6.0)])
    assert table["predicted_s"].isna().tolist() == [True, False, False]
    assert table["predicted_s"].tolist()[1:] == [3, 6]
    assert balance.seconds([shard(None, 10.0)])["predicted_s"].isna().all()


def test_an_empty_shard_is_predicted_to_take_no_time():
    assert balance.seconds([shard(0.0, 0.01), shard(0.0, 0.01)])["predicted_s"].isna().all()
    assert balance.seconds([shard(0.0, 0.0), shard(9.0, 4.0)])["predicted_s"].tolist() == [0, 4]


def test_check_has_both_of_new_shards_and_takes_those_of_older_versions(copied_run):
    found = [meta.read(part) for part in copied_run.parts]
    costs = [one["predicted_cost"] for one in found]
    assert [one["tokens"] for one in found] == [one["residues"] + 2 * one["sequences"] for one in found]
    assert all(one["tokens"] < one["predicted_cost"] < 1.5 * one["tokens"] for one in found)
    table = copied_run.check()
    # Rounded to hundredths, of which so few sequences take but some.
    together = sum(one["timings"]["steady_s"] for one in found)
    assert table["predicted_s"].tolist() == pytest.approx([cost / sum(costs) * together for cost in costs], abs=0.006)
    assert table["measured_s"].tolist() == pytest.approx([one["timings"]["steady_s"] for one in found], abs=0.006)
    for part in copied_run.parts:
        damage.remove_from_meta(part, "predicted_cost", "tokens", "tokens_squared")
        damage.edit_meta(part)
    assert copied_run.check()["predicted_s"].isna().all()
