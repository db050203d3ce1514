#!/bin/bash
# A broker that is a controller too (KRaft): one, or one of three. It formats its volume the first time.
# Ports: 9092 within the network, 9094 for who comes by the host's port, 9093 between controllers.
set -euo pipefail
umask 077
if [ "$BROKERS" = 3 ]; then voters=1@kafka-1:9093,2@kafka-2:9093,3@kafka-3:9093 copies=3 most=2; else voters=1@kafka-1:9093 copies=1 most=1; fi
protocol=PLAINTEXT controller=PLAINTEXT
[ -z "${SECURED:-}" ] || protocol=SASL_SSL controller=SSL
cat > /tmp/server.properties << END
process.roles=broker,controller
node.id=$NODE
controller.quorum.voters=$voters
listeners=INSIDE://:9092,OUTSIDE://:9094,CONTROLLER://:9093
advertised.listeners=INSIDE://kafka-$NODE:9092,OUTSIDE://$EXTERNAL
listener.security.protocol.map=INSIDE:$protocol,OUTSIDE:$protocol,CONTROLLER:$controller
controller.listener.names=CONTROLLER
inter.broker.listener.name=INSIDE
log.dirs=/var/lib/kafka/data/log
auto.create.topics.enable=false
# Images travel in messages, so all that a message passes through lets it pass.
message.max.bytes=16777216
replica.fetch.max.bytes=16777216
# A week, or so much for each partition, in segments small enough for that to bite.
log.retention.hours=168
log.retention.bytes=${RETENTION_BYTES:-1073741824}
log.segment.bytes=134217728
log.cleaner.dedupe.buffer.size=16777216
group.initial.rebalance.delay.ms=0
offsets.topic.replication.factor=$copies
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=$copies
transaction.state.log.min.isr=$most
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=$copies
share.coordinator.state.topic.min.isr=$most
share.coordinator.state.topic.num.partitions=1
min.insync.replicas=$most
unclean.leader.election.enable=false
END
format=()
if [ -n "${SECURED:-}" ]; then
    password=$(< /run/secrets/kafka_password)
    format=(--add-scram "SCRAM-SHA-512=[name=linewatch,password=$password]")
    login=org.apache.kafka.common.security.scram.ScramLoginModule
    cat >> /tmp/server.properties << END
ssl.keystore.type=PEM
ssl.keystore.location=/run/secrets/kafka_pem
ssl.truststore.type=PEM
ssl.truststore.location=/run/secrets/ca
# Controllers show each other their certificates.
listener.name.controller.ssl.client.auth=required
sasl.enabled.mechanisms=SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.inside.scram-sha-512.sasl.jaas.config=$login required username="linewatch" password="$password";
listener.name.outside.scram-sha-512.sasl.jaas.config=$login required;
END
fi
java=(java "-Xmx$HEAP" -Djava.awt.headless=true -XX:-UsePerfData -Dlog4j2.configurationFile=/etc/linewatch/log4j2.properties)
java+=(-cp "/opt/kafka/libs/*")
# What it writes is left out: the account's salted password is in it.
[ -e /var/lib/kafka/data/log/meta.properties ] ||
    "${java[@]}" kafka.tools.StorageTool format --cluster-id="$CLUSTER_ID" --config /tmp/server.properties "${format[@]}" > /dev/null
exec "${java[@]}" kafka.Kafka /tmp/server.properties
