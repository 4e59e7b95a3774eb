"""What all command-line tools share."""

import gc

import pytest

from seqmill import cli


def test_what_was_imported_is_left_out_of_garbage_collection_which_then_goes_on():
    try:
        with cli.importing():
            assert not gc.isenabled()
            imported = [object()]
        assert gc.isenabled()
        assert not any(found is imported for found in gc.get_objects())
    finally:
        gc.unfreeze()


def test_garbage_collection_goes_on_after_an_import_that_failed():
    try:
        with pytest.raises(ImportError), cli.importing():
            raise ImportError
        assert gc.isenabled()
    finally:
        gc.unfreeze()
