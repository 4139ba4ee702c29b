"""Convert executed notebooks to pages that need no network; equations are MathML."""

from jinja2 import pass_context
from jinja2.runtime import Context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

# The page of nbconvert without the script that fetches MathJax.
_TEMPLATE = "{% extends 'lab/index.html.j2' %}{% block html_head_js_mathjax %}{% endblock %}"


class _Renderer(IPythonRenderer):
    def block_math(self, body: str) -> str:
        return convert(body, display="block")

    def inline_math(self, body: str) -> str:
        return convert(body)

    def latex_environment(self, name: str, body: str) -> str:
        return convert(rf"\begin{{{name}}}{body}\end{{{name}}}", display="block")


class _Exporter(HTMLExporter):
    @pass_context
    def markdown2html(self, context: Context, source: str) -> str:
        renderer = _Renderer(
            escape=False,
            attachments=context.get("cell", {}).get("attachments", {}),
            embed_images=self.embed_images,
            path=context.get("resources", {}).get("metadata", {}).get("path", ""),
            anchor_link_text=self.anchor_link_text,
        )
        return MarkdownWithMath(renderer=renderer).render(source)


def to_html(notebook: NotebookNode, folder: str) -> str:
    """Return an executed notebook as one HTML page with embedded images; links are relative to `folder`."""
    exporter = _Exporter(require_js_url="", embed_images=True, raw_template=_TEMPLATE)
    return exporter.from_notebook_node(notebook, {"metadata": {"path": folder}})[0]
