"""From YAML files to settings that are checked, resolved and digested."""
