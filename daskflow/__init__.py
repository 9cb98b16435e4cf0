"""Process 3D microscopy volumes blockwise on Dask."""
