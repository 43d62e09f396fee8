#!/bin/sh
# Prints the secret that the pods want, new for each installation:
#   deploy/kubernetes/secrets.sh | kubectl create -f -
# `create` refuses when there is one already: who changes the passwords of a running installation starts its pods again.
set -eu

hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

password=$(hex 24)
cat <<END
apiVersion: v1
kind: Secret
metadata: {name: inferq, namespace: ${NAMESPACE:-inferq}}
type: Opaque
stringData:
  redis_password: "$password"
  redis_url: "redis://:$password@inferq-redis:6379/0"
  cache_redis_url: "redis://:$password@inferq-redis-cache:6379/0"
  metrics_token: "$(hex 16)"
  flower_password: "$(hex 12)"
END
