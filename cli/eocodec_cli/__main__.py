"""`python -m eocodec_cli`."""

from eocodec_cli import main

main()
