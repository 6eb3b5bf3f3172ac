"""What `--config` says of settings: it counts for this call's configuration, and for no other."""

from bpgo.config.overlays import save_given

GIVEN = {
    key: value
    for key, value in workflow.config_settings.config.items()
    if key not in WORKFLOW_OPTIONS
}
# For jobs that read configuration files; named by its content, never overwritten.
GIVEN_FILE = Path(ROOT, "config", f"given_{text_digest(json.dumps(GIVEN, sort_keys=True))}.yaml")


def refuse_given(what, instead):
    """An end before any job of `what`, for which it does not count."""
    if GIVEN:
        fail(f"--config {', '.join(GIVEN)}: does not count for {what}: {instead}")


def files_of_jobs(root):
    """The configuration files of `root` and, as the last one, what `--config` says."""
    given = [GIVEN_FILE] if GIVEN and root not in BESIDE else []
    return configfiles_of(root) + given


def save_given_file():
    """Before any job."""
    if GIVEN and not GIVEN_FILE.exists():
        save_given(GIVEN, GIVEN_FILE)


def measured_file(wildcards):
    """The configuration that `bench` measures."""
    refuse_given("bench, which measures one file", "write it into a copy of that file")
    if len(workflow.configfiles) > 1:
        fail(
            "bench: measures one configuration file: write the values of"
            f" {', '.join(map(str, workflow.configfiles[1:]))} into a copy of the first one"
        )
    return Path(workflow.configfiles[0])
