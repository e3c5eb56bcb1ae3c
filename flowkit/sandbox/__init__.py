"""Programs of nodes: started, bounded, watched and ended. Nothing here knows of tasks, Kafka or MongoDB."""
