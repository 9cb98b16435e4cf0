"""Words to jobs: the chained command line, derived from operator signatures."""
