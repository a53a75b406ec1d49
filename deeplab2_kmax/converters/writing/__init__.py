"""Records written to shards: on all cores or with Apache Beam, in a way that can be stopped and resumed.

Start with `sharded_output`. `shard_writer` writes one shard, `manifest` the summary beside the shards, `beam_shards`
does the same work on many machines.
"""
