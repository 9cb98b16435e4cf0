"""How meshes and skeletons leave a layer: as files for other programs, or into another layer."""
