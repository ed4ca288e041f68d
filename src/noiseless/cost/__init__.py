"""What a run will take: passes, memory, bytes sent, seconds."""
