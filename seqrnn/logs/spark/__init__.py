"""Detection on Apache Spark (extra `spark`): logs of many machines."""
