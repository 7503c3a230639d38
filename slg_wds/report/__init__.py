"""`slg-wds report`: label sets drawn as one page for the browser.

Enters: label sets, and where the user gives them their images. Leaves: one HTML file. A report goes through the
folders in this order; each may import those before it, embeddings/ also writing/.

    reading/     opens the sets, draws a sample, reads records and images
    measuring/   what the labels say, in numbers: per image, over all images, teacher against teacher
    drawing/     figures as SVG, from numbers alone
    embeddings/  the same for sets of embeddings: their measures, figures and page
    writing/     words, tables, gallery and figures put into the page's template
    templates/   the page's HTML, style and script
    command      the command: checks, then calls the others

The folder may import replay's readers of images, inspection's figures of low-rank labels, and whatever lies below them.
"""
