"""One capability per file: functions from volumes to volumes or jobs."""
