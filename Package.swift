// swift-tools-version: 6.2
import PackageDescription

/// On in every target: see the style notes in README.md, "House rules".
let strict: [SwiftSetting] = [
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

/// Micro benchmarks, only where they are asked for: nobody else has to fetch what they need.
let withBenchmarks = Context.environment["PLEXUS_BENCHMARKS"] != nil

let benchmarkDependencies: [Package.Dependency] = [
    // Without its traits, which intercept malloc and swift_retain: `scripts/instructions` counts those.
    .package(url: "https://github.com/ordo-one/benchmark", exact: "1.38.1", traits: [])
]

let benchmarkTargets: [Target] = [
    .target(
        name: "Workloads", dependencies: ["Bytes", "NBDProtocol", "MirrorFormat", "MirrorCore", "URing"],
        path: "Benchmarks/Instructions/Workloads", swiftSettings: strict),
    .executableTarget(
        name: "instructions", dependencies: ["Workloads"], path: "Benchmarks/Instructions/Command",
        swiftSettings: strict),
    .executableTarget(
        name: "micro", dependencies: ["Workloads", .product(name: "Benchmark", package: "benchmark")],
        path: "Benchmarks/Micro", swiftSettings: strict,
        plugins: [.plugin(name: "BenchmarkPlugin", package: "benchmark")]),
]

let package = Package(
    name: "plexus",
    products: [
        .executable(name: "plexus", targets: ["plexus"]),
        .executable(name: "simulate", targets: ["simulate"]),
        .executable(name: "fuzz", targets: ["fuzz"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    ] + (withBenchmarks ? benchmarkDependencies : []),
    targets: [
        .target(name: "Bytes", dependencies: ["CProcessor"], swiftSettings: strict),
        .target(name: "NBDProtocol", dependencies: ["Bytes"], swiftSettings: strict),
        .target(name: "MirrorFormat", dependencies: ["Bytes"], swiftSettings: strict),
        .target(name: "MirrorCore", dependencies: ["Bytes", "MirrorFormat"], swiftSettings: strict),
        .target(
            name: "Simulator", dependencies: ["MirrorCore", "MirrorFormat", "NBDProtocol", "Bytes"],
            swiftSettings: strict),
        .target(
            name: "Fuzzing",
            dependencies: ["Bytes", "NBDProtocol", "MirrorFormat", "MirrorCore", "Control", "MirrorServer"],
            swiftSettings: strict),
        .systemLibrary(name: "CLibFuzzer"),
        .systemLibrary(name: "CLibURing", providers: [.apt(["liburing-dev"])]),
        .systemLibrary(name: "CLibNBD", providers: [.apt(["libnbd-dev"])]),
        .systemLibrary(name: "CLibBlkid", providers: [.apt(["libblkid-dev"])]),
        .systemLibrary(name: "CLinux"),
        .systemLibrary(name: "CProcessor"),
        .target(name: "CFilePassing"),
        .target(name: "URing", dependencies: ["CLibURing"], swiftSettings: strict),
        .target(name: "Control", swiftSettings: strict),
        .target(
            name: "Attachment",
            dependencies: ["CLibNBD", "CLinux", .product(name: "Logging", package: "swift-log")],
            swiftSettings: strict),
        .target(
            name: "MirrorServer",
            dependencies: [
                "Bytes", "NBDProtocol", "MirrorFormat", "MirrorCore", "URing", "Control", "CLibBlkid", "CLinux",
                "CFilePassing",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "BasicContainers", package: "swift-collections"),
                .product(name: "DequeModule", package: "swift-collections"),
            ],
            swiftSettings: strict),
        .target(name: "Rehearsal", dependencies: ["Bytes", "Control", "CLibBlkid"], swiftSettings: strict),
        .executableTarget(
            name: "plexus",
            dependencies: [
                "MirrorServer", "Control", "Attachment", "Rehearsal",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: strict),
        .executableTarget(
            name: "simulate",
            dependencies: [
                "Simulator",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict),
        .executableTarget(
            name: "fuzz",
            dependencies: [
                "Fuzzing", "CLibFuzzer",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict),
        .testTarget(name: "BytesTests", dependencies: ["Bytes", "TestSupport"], swiftSettings: strict),
        .testTarget(
            name: "SimulatorTests", dependencies: ["Simulator", "MirrorCore", "MirrorFormat"], swiftSettings: strict),
        .testTarget(
            name: "NBDProtocolTests", dependencies: ["NBDProtocol", "Bytes", "TestSupport"], swiftSettings: strict),
        .testTarget(
            name: "MirrorFormatTests", dependencies: ["MirrorFormat", "Bytes", "TestSupport"], swiftSettings: strict),
        .testTarget(
            name: "MirrorCoreTests", dependencies: ["MirrorCore", "MirrorFormat", "Bytes", "TestSupport"],
            swiftSettings: strict),
        .testTarget(name: "FuzzingTests", dependencies: ["Fuzzing", "MirrorCore"], swiftSettings: strict),
        // What several test targets need; part of no product.
        .target(name: "TestSupport", path: "Tests/TestSupport", swiftSettings: strict),
        .testTarget(name: "AttachmentTests", dependencies: ["Attachment", "CLinux"], swiftSettings: strict),
        .testTarget(name: "URingTests", dependencies: ["URing", "TestSupport"], swiftSettings: strict),
        .testTarget(
            name: "RehearsalTests", dependencies: ["Rehearsal", "Control", "TestSupport"], swiftSettings: strict),
        .testTarget(name: "ControlTests", dependencies: ["Control", "TestSupport"], swiftSettings: strict),
        .testTarget(
            name: "MirrorServerTests",
            dependencies: [
                "MirrorServer", "MirrorFormat", "NBDProtocol", "Control", "TestSupport",
                .product(name: "BasicContainers", package: "swift-collections"),
            ],
            swiftSettings: strict),
        // Depends on the executable so that it is built beside the test bundle, where the tests look for it.
        .testTarget(
            name: "EndToEndTests", dependencies: ["plexus", "Control", "CLibNBD", "TestSupport"],
            swiftSettings: strict),
    ] + (withBenchmarks ? benchmarkTargets : []),
    swiftLanguageModes: [.v6]
)
