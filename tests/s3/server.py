"""A real S3-compatible store (moto) for the tests of checkpoints in a bucket.

Prints one line of JSON with where it is and a key that it knows, then answers each line of its input with one line of
JSON. Every request has to be signed with that key: moto computes the signature again. It ends with its input.
"""

import json
import sys

from moto import settings
from moto.server import ThreadedMotoServer

BUCKET = "saved"
REGION = "eu-west-1"


def client(service, endpoint):
    import boto3

    return boto3.client(
        service,
        region_name=REGION,
        endpoint_url=endpoint,
        aws_access_key_id="setup",
        aws_secret_access_key="setup",
    )


def backend():
    from moto.s3.models import s3_backends

    return next(iter(s3_backends["123456789012"].values()))


def answer(command, *rest):
    bucket = backend().buckets.get(BUCKET)
    if command == "keys":
        return sorted(bucket.keys.keys())
    if command == "uploads":
        return [upload.key_name for upload in bucket.multiparts.values()]
    if command == "flip":
        key = bucket.keys[rest[0]]
        value = bytearray(key.value)
        value[len(value) // 2] ^= 1
        key.value = bytes(value)
        return None
    if command == "drop":
        bucket.keys.pop(rest[0])
        return None
    raise ValueError(command)


def main():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client("s3", endpoint).create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    iam = client("iam", endpoint)
    iam.create_user(UserName="oma")
    # What the documentation says that the key needs, and no more.
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
                "Resource": f"arn:aws:s3:::{BUCKET}/*",
            }
        ],
    }
    iam.put_user_policy(UserName="oma", PolicyName="oma", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName="oma")["AccessKey"]
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    facts = {
        "endpoint": endpoint,
        "region": REGION,
        "bucket": BUCKET,
        "access_key_id": key["AccessKeyId"],
        "secret_access_key": key["SecretAccessKey"],
    }
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(*line.split())), flush=True)
    server.stop()


main()
