"""`python -m ltray.dense`: the dense run alone, and the shards that it needs."""

from ltray.command_line import (
    add_connection,
    add_tracking,
    connection,
    exit_with,
    experiment_path,
    parser,
    timed_lines,
)


def main() -> int:
    """Run the command; returns its exit status."""
    arguments = parser("dense", "Train the unpruned network and save it at the reset points.")
    add_connection(arguments)
    add_tracking(arguments)
    options = arguments.parse_args()

    from ltray.cluster.sweeping import dense_run
    from ltray.locate import locate

    run = locate(experiment_path(options.experiment), options.root)
    say = timed_lines()
    for replicate, trajectory in dense_run(run, connection(options), say, options.track).items():
        row = trajectory.row
        accuracy = f"validation {row['val_top1']:.4f}, test {row['test_top1']:.4f}"
        say(f"replicate {replicate}: {accuracy}; {run.folder.replicate(replicate).path}")
    return 0


if __name__ == "__main__":
    exit_with(main)
