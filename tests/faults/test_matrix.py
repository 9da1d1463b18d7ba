"""The faults that otzi is made for, and by which tests each is shown; every test is there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

MATRIX = {
    "1 kill -9 of a coordinator, at random": (
        "faults/test_run_faults.py::test_thirty_random_kills_end_in_the_same_bytes",
        "faults/test_run_faults.py::test_two_hundred_random_kills_end_in_the_same_bytes",
        "faults/test_ingest_faults.py::test_thirty_random_kills_end_in_the_same_bytes",
        "faults/test_ingest_faults.py::test_two_hundred_random_kills_end_in_the_same_bytes",
        "faults/test_segment_faults.py::test_random_kills_end_in_the_same_bytes",
        "faults/test_segment_faults.py::test_two_hundred_random_kills_end_in_the_same_bytes",
        "faults/test_watch_faults.py::test_random_kills_end_in_the_same_bytes",
        "faults/test_watch_faults.py::test_two_hundred_random_kills_end_in_the_same_bytes",
        "faults/test_train_faults.py::test_killed_over_and_over_it_ends_in_the_same_bits_and_curve",
    ),
    "2 a worker or its nanny is killed, a worker crashes": (
        "faults/test_run_workers.py::test_a_worker_that_dies_costs_no_attempt",
        "faults/test_run_workers.py::test_a_nanny_that_is_killed_costs_no_attempt",
        "faults/test_segment_faults.py::test_a_worker_that_is_killed_is_made_up_for",
        "faults/test_segment_faults.py::test_a_lost_worker_s_tiles_are_few",
        "faults/test_segment_faults.py::test_at_the_reference_size_little_is_done_again",
    ),
    "3 the scheduler is killed": (
        "faults/test_run_workers.py::"
        "test_a_scheduler_that_is_gone_ends_the_run_and_the_next_one_goes_on",
    ),
    "4 a SLURM job is killed": (
        "test_cluster_slurm.py::test_a_killed_job_costs_no_result_and_is_replaced",
    ),
    "5 a crash at every boundary, of the first, a middle and the last": (
        "faults/test_run_faults.py::test_a_kill_at_every_boundary_of_a_stage_loses_nothing",
        "faults/test_run_faults.py::test_a_kill_at_every_boundary_of_a_publish_loses_nothing",
        "faults/test_run_faults.py::"
        "test_a_kill_at_every_boundary_of_the_first_and_the_last_publish",
        "faults/test_ingest_faults.py::test_a_kill_at_every_named_point_loses_nothing",
        "faults/test_segment_faults.py::test_a_kill_at_every_named_point_loses_nothing",
        "faults/test_watch_faults.py::test_a_kill_at_every_named_point_of_any_volume_loses_nothing",
        "test_collection.py::test_where_somebody_was_killed_while_making_one_it_can_be_made",
        "test_object_storage.py::test_a_kill_loses_nothing_and_the_upload_goes_on",
    ),
    "6 no space for data, or for the ledger": (
        "faults/test_run_disks.py::test_a_full_disk_ends_the_run_and_the_next_one_goes_on",
        "faults/test_run_disks.py::test_a_full_disk_under_the_ledger_alone_is_as_harmless",
        "test_small_disk.py::test_a_disk_that_fills_up_leaves_nothing_half_made",
        "test_small_disk.py::test_a_full_disk_is_read",
        "faults/test_segment_faults.py::test_a_disk_that_fills_up_leaves_nothing_half_made",
        "faults/test_train_faults.py::test_a_full_disk_leaves_the_checkpoint_before",
        "test_watch_verb.py::test_a_full_disk_is_tried_again",
    ),
    "7 EIO, read-only, no permission": (
        "faults/test_run_disks.py::test_a_source_on_a_broken_disk_holds_nobody_up",
        "faults/test_run_disks.py::test_a_disk_that_fails_once_costs_nothing",
        "faults/test_run_disks.py::test_a_disk_that_fails_once_at_any_time_costs_nothing",
        "faults/test_run_disks.py::test_a_read_only_collection_is_exit_code_77",
        "faults/test_run_disks.py::test_what_is_closed_to_the_user_is_named_and_left_as_it_is",
        "test_small_disk.py::test_a_read_only_disk_is_read_and_named",
    ),
    "8 spoiled files": (
        "faults/test_watch_faults.py::test_every_spoiled_file_ends_with_a_reason",
        "faults/test_watch_faults.py::test_a_thousand_spoiled_files_end_with_a_reason",
    ),
    "9 half copied, reserved, rewritten, renamed, replaced after sealing": (
        "faults/test_watch_faults.py::test_only_bytes_that_rested_are_published",
        "test_watch_poll.py::test_only_whole_bytes_are_published_however_they_come",
        "test_watch_poll.py::test_a_rename_into_place_is_taken_at_once",
        "test_watch_poll.py::test_a_reserved_file_that_rests_is_taken_wrong_and_healed_by_a_revision",
        "test_watch_poll.py::test_a_replaced_file_is_a_new_revision_and_the_old_one_stays_until_then",
        "test_watch_poll.py::test_a_file_that_is_written_while_it_is_read_goes_back_to_settling",
        "test_run_pipeline.py::test_a_replaced_file_is_a_new_revision_all_the_way",
    ),
    "10 delivered twice, in other letters, to several watchers": (
        "test_watch_poll.py::test_the_same_bytes_are_one_tomogram",
        "test_watch_poll.py::test_of_twins_that_come_together_the_older_is_the_original",
        "test_run_pipeline.py::test_the_same_bytes_under_another_name_are_no_other_tomogram",
        "faults/test_watch_faults.py::test_watchers_at_the_same_time_make_each_tomogram_once",
    ),
    "11 clocks that jump, times that cannot be": (
        "test_watch_poll.py::test_a_wall_clock_that_jumps_changes_nothing",
        "test_watch_poll.py::test_times_of_files_are_only_compared_with_themselves",
        "test_watch_poll.py::test_a_clock_that_is_set_back_or_begins_anew_takes_nothing_early",
        "faults/test_run_ledgers.py::"
        "test_a_clock_that_is_an_hour_ahead_has_work_done_twice_and_committed_once",
        "test_run.py::test_the_stages_of_a_run_that_was_killed_are_taken_back",
    ),
    "12 bits that flip": (
        "faults/test_bit_flips.py::test_every_flip_in_a_shard_is_found",
        "faults/test_bit_flips.py::"
        "test_every_flip_in_a_shard_index_is_found_without_reading_the_chunks",
        "faults/test_bit_flips.py::test_every_flip_in_metadata_is_found",
        "faults/test_bit_flips.py::"
        "test_a_flip_in_a_pointer_or_a_manifest_is_found_without_the_catalog",
        "faults/test_bit_flips.py::test_a_flip_in_the_catalog_is_found_or_changes_nothing",
        "faults/test_bit_flips.py::test_what_can_be_derived_again_comes_back_to_the_byte",
        "faults/test_bit_flips.py::test_a_thousand_flips_are_found",
    ),
    "13 SIGTERM, SIGINT, SIGHUP": (
        "test_run_verb.py::test_a_signal_ends_it_soon_and_leaves_no_lease",
        "faults/test_watch_faults.py::test_it_ends_amid_a_volume_and_the_next_one_goes_on",
        "test_stopping.py::test_a_signal_ends_the_work_at_its_next_step",
    ),
    "14 two coordinators": (
        "test_run.py::"
        "test_a_second_coordinator_is_refused_and_one_that_forces_its_way_doubles_nothing",
        "test_run.py::test_who_is_taken_for_dead_does_not_commit",
        "test_watch_verb.py::test_a_second_watcher_is_refused",
        "test_postgres.py::test_coordinators_share_a_collection",
    ),
    "15 the ledger is lost": (
        "faults/test_run_ledgers.py::test_a_lost_ledger_is_made_again_and_nothing_else_is",
        "test_ledger.py::test_a_rebuilt_catalog_is_the_one_that_was_lost",
        "test_watch_poll.py::test_a_lost_ledger_costs_reading_and_no_second_tomogram",
    ),
    "16 a task that hangs": (
        "faults/test_run_workers.py::test_workers_that_hang_are_replaced",
        "test_run.py::test_what_hangs_is_noticed_and_its_lease_given_back",
    ),
}


@pytest.mark.parametrize("fault", MATRIX)
def test_each_fault_has_tests_that_are_there(fault: str) -> None:
    for name in MATRIX[fault]:
        file, test = name.split("::")
        tree = ast.parse((TESTS / file).read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert test in functions, name
