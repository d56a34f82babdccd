"""The descriptor pool of BuildKit's messages, apart from protobuf's default pool (see `wire/generate.py`)."""

from google.protobuf import any_pb2, descriptor_pool, timestamp_pb2

POOL = descriptor_pool.DescriptorPool()
for _known in (any_pb2, timestamp_pb2):
    POOL.AddSerializedFile(_known.DESCRIPTOR.serialized_pb)
