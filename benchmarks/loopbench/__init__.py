"""LoopBench: faults with a known cause, planted in real histories that run through Noria's own turns."""
