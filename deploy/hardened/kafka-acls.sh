#!/bin/sh
# What each of FlowKit's roles may do in Kafka, and no more: no wildcard, nothing on the cluster.
#
#   BOOTSTRAP=kafka-1:9093 ADMIN=admin.properties PREFIX=flowkit. sh kafka-acls.sh
#
# Users: flowkit-coordinator, flowkit-worker (or one of them for each pool), flowkit-app (whatever creates tasks and
# waits for them). Only coordinators make topics; start one first.
set -eu
PREFIX="${PREFIX:-flowkit.}"

allow() {
    "${KAFKA_ACLS:-kafka-acls.sh}" --bootstrap-server "$BOOTSTRAP" --command-config "$ADMIN" --add \
        --allow-principal "User:$1" --operation "$2" "--$3" "$4" --resource-pattern-type "$5"
}

allow flowkit-coordinator Create   topic "${PREFIX}"             prefixed
allow flowkit-coordinator Describe topic "${PREFIX}"             prefixed
allow flowkit-coordinator Read     topic "${PREFIX}facts.v1"     literal
allow flowkit-coordinator Read     topic "${PREFIX}fleet.v1"     literal
allow flowkit-coordinator Read     topic "${PREFIX}events.v1"    literal
allow flowkit-coordinator Write    topic "${PREFIX}facts.v1"     literal
allow flowkit-coordinator Write    topic "${PREFIX}work.v1"      literal
allow flowkit-coordinator Write    topic "${PREFIX}fleet.v1"     literal
allow flowkit-coordinator Write    topic "${PREFIX}control.v1"   literal
allow flowkit-coordinator Write    topic "${PREFIX}events.v1"    literal
allow flowkit-coordinator Write    topic "${PREFIX}dead.v1"      literal
allow flowkit-coordinator Read     group "${PREFIX}coordinators" literal

allow flowkit-worker      Describe topic "${PREFIX}"             prefixed
allow flowkit-worker      Read     topic "${PREFIX}work.v1"      literal
allow flowkit-worker      Read     topic "${PREFIX}control.v1"   literal
allow flowkit-worker      Read     topic "${PREFIX}streams.v1"   literal
allow flowkit-worker      Write    topic "${PREFIX}facts.v1"     literal
allow flowkit-worker      Write    topic "${PREFIX}fleet.v1"     literal
allow flowkit-worker      Write    topic "${PREFIX}streams.v1"   literal
allow flowkit-worker      Write    topic "${PREFIX}dead.v1"      literal

# `control` and `fleet`: to ask who is there, for `flowkit run` and `flowkit doctor`.
allow flowkit-app         Describe topic "${PREFIX}"             prefixed
allow flowkit-app         Read     topic "${PREFIX}events.v1"    literal
allow flowkit-app         Read     topic "${PREFIX}fleet.v1"     literal
allow flowkit-app         Write    topic "${PREFIX}facts.v1"     literal
allow flowkit-app         Write    topic "${PREFIX}control.v1"   literal
