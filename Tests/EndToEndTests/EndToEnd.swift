import Testing

/// The built `plexus` with real files and a real client, libnbd. One test after the other: each loads the machine.
@Suite(.serialized) struct EndToEnd {}
