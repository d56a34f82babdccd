"""The build graph that every frontend makes and every solver runs."""
