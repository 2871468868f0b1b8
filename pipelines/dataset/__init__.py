"""The BIDS App: a dataset in, a dataset of derivatives out."""
