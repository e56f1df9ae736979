"""Pictures that come with the package, for `eocodec demo`. Origins and licences: samples/README.md."""
