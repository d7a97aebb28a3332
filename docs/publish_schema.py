"""A hook of mkdocs: the site serves the card's schema, which stays where the package has it."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

CARDS = Path(__file__).resolve().parents[1] / "evaluation/cards"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every published version, under its own name."""
    for schema in sorted(CARDS.glob("robustness-card-v*.schema.json")):
        files.append(File.generated(config, schema.name, abs_src_path=str(schema)))
    return files
