"""Write the files that follow from the sections, in the repository's root."""

from pathlib import Path

import yaml

from swift_study.config import default_yaml, load, schema_json

Path("config.yaml").write_text(default_yaml())
Path("config.schema.json").write_text(schema_json())
load(yaml.safe_load(default_yaml()))
