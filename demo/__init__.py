"""The chat page: `demo.app.serve` opens it.

======================  ==========================================================================
``display``             text of people and models as Markdown that cannot carry HTML
``guard``               what the server answers at all: hosts, origins, paths, headers
``replies``             what happens when someone sends, stops, retries, edits or undoes
``page``                the layout and its events
``app``                 page and guard together, and a server on loopback
======================  ==========================================================================
"""
