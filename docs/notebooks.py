"""Makes a page of every notebook of these pages, for mkdocs.yml: texts as they stand, code in blocks."""

import json
from pathlib import Path

from mkdocs.structure.files import File


def on_files(files, config):
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        cells = json.loads(Path(notebook.abs_src_path).read_text())["cells"]
        texts = ["".join(cell["source"]) for cell in cells]
        texts = [f"```python\n{text}\n```" if cell["cell_type"] == "code" else text for cell, text in zip(cells, texts)]
        name = notebook.src_uri.removesuffix(".ipynb")
        download = f"[This page as a notebook]({Path(notebook.src_uri).name}){{download}}"
        files.append(File.generated(config, f"{name}.md", content="\n\n".join([*texts, download])))
    return files


def on_page_markdown(markdown, page, **_):
    """Links to a notebook lead to its page; the page itself has the link to the file."""
    return markdown if page.file.generated_by else markdown.replace(".ipynb)", ".md)")
