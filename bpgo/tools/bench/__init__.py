"""Where the time goes: one command that measures, on the machine it runs on."""
