"""Writes records to shards, on several processes or with Apache Beam; what is interrupted can be resumed.

Start with `sharded_output`, which writes all splits of a data set. `shard_writer` writes one shard, `manifest` the
summary beside the shards, and `beam_shards` has Apache Beam write the shards on many machines.

Elsewhere: the records are made in `deeplab2_kmax.converters.reading`; their fields are in `deeplab2_kmax.records`.
"""
