"""What each command of the program does with its arguments. Step by step: read, call the rooms below, print."""
