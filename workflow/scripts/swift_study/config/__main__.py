"""Write the files that follow from the sections, in the repository's root."""

from pathlib import Path

from swift_study.config import default_yaml, schema_json

Path("config.default.yaml").write_text(default_yaml())
Path("config.schema.json").write_text(schema_json())
