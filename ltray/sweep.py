"""`python -m ltray.sweep`: the main job, from the source's files to the report."""

from ltray.command_line import add_address, exit_with, experiment_path, parser, timed_lines


def main() -> int:
    """Run the command; returns its exit status: 1 when a ticket of the grid failed."""
    arguments = parser(
        "sweep",
        "Prepare, train the dense network, prune it, retrain every ticket, write the report. "
        "What is done is not done again: the same command goes on where it was.",
    )
    add_address(arguments)
    options = arguments.parse_args()

    from ltray.cluster.sweeping import sweep_run
    from ltray.locate import locate

    run = locate(experiment_path(options.experiment), options.root)
    say = timed_lines()
    failed = sweep_run(run, options.address, say)
    if failed:
        say(
            f"{failed} tickets failed: the report names their errors; the same command retries them"
        )
    return int(failed > 0)


if __name__ == "__main__":
    exit_with(main)
