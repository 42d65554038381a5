"""Pictures of the stages of a build: SVG with a layout of our own, DOT and Mermaid."""
