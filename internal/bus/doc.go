// Package bus is leat's Kafka: a client made on segmentio/kafka-go, and an
// embedded broker that the very same client reaches over loopback TCP.
//
// # Producing
//
// A [Producer] batches records per partition, has one request in flight per
// partition and retries it with the same producer id and sequence, so records
// of one key stay in order (I3) and none is stored twice or out of order by a
// retry. It answers only once every replica in sync holds the records. A key's
// partition is murmur2(key) & 0x7fffffff % partitions: what the Java client
// and most others do, so that other publishers agree with leat.
//
// # Consuming
//
// [Client.Consume] hands over batches of one partition in offset order and
// commits their offsets after the handler has returned nil (I1). Several
// partitions are handled in parallel.
//
// # Reading without a group
//
// [Client.Latest], [Client.Lookup], [Client.Tail], [Client.Lag] and
// [Client.WaitConsumed] serve status, dead letters and positions.
package bus
