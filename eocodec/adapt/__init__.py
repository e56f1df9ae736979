"""Adapting a shipped model to pictures of one kind, in the time given, on the machine at hand.

Looks at the pictures (`survey`), holds some out, trains from the bundle's weights for what is wanted (`goals`, `run`),
measures files of the held-out pictures before and after, and says what was gained (`report`). Knows `eocodec.flow` and
the library of models; the export is a function that its caller passes in. Needs the extra `adapt`.
"""
