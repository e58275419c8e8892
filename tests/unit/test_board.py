"""Rows of the shared memory: one writer each, and the same one for a successor."""

from app.process_life.board import ROWS_PER_WORKER, Board


def test_processes_that_live_at_once_have_rows_of_their_own() -> None:
    board = Board(8)
    rows = []
    for generation in range(ROWS_PER_WORKER):
        board.generation = generation
        rows += [board.row(f"Sanic-Server-{number}-0") for number in range(8)]
    assert len(set(rows)) == len(rows) == board.rows
    assert None not in rows


def test_a_successor_of_the_same_generation_has_the_same_row() -> None:
    board = Board(2)
    board.generation = 5
    assert board.row("Sanic-Server-1-0") == board.row("Sanic-Server-1-0")


def test_a_worker_beyond_the_board_has_no_row() -> None:
    assert Board(2).row("Sanic-Server-2-0") is None
