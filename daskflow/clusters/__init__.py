"""A name or an address in, a Dask client out."""
