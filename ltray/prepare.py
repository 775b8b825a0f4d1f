"""`python -m ltray.prepare`: a source's own files to Parquet shards."""

from ltray.command_line import (
    add_connection,
    connection,
    exit_with,
    experiment_path,
    parser,
    timed_lines,
)


def main() -> int:
    """Run the command; returns its exit status."""
    arguments = parser("prepare", "Make the shards of an experiment from its source's own files.")
    add_connection(arguments)
    arguments.add_argument(
        "--verify", action="store_true", help="read all shards back and say what is wrong"
    )
    arguments.add_argument(
        "--checksums",
        action="store_true",
        help="first compare the archives' MD5 with the published ones",
    )
    options = arguments.parse_args()

    from ltray.analysis.card import as_text
    from ltray.cluster.sweeping import prepare_run, verify_run
    from ltray.locate import locate

    run = locate(experiment_path(options.experiment), options.root)
    say = timed_lines()
    if options.verify:
        faults = verify_run(run, connection(options), say)
        for fault in faults:
            print(fault)
        print(f"{run.data.path}: {f'{len(faults)} faults' if faults else 'whole'}")
        return int(bool(faults))
    manifest = prepare_run(run, connection(options), say, options.checksums)
    for line in as_text(manifest):
        say(line)
    say(f"shards: {run.data.path}")
    say(f"card: {run.data.card}")
    return 0


if __name__ == "__main__":
    exit_with(main)
