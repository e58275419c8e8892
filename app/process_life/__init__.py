"""Process life: who listens, who watches, how a worker leaves, and who takes its place."""
