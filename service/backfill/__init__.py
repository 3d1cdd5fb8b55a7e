"""Whole archives: `python -m service.backfill SOURCE OUT --model ID` explains every image of a source, on Ray.

    SOURCE ─entries─> OUT/listing/ ─read_shards─> prepared batches ─Explainer─> rows ─> OUT/results/
            once,                   tasks of a     in Ray's object   actors with         by the driver alone,
            streamed                core each      store             the model           one file a shard, atomic

A shard is some hundred images of the listing and the unit of resuming: it is done when its file of results is there.
Only this package knows Ray and Arrow (the extra `backfill`).
"""
