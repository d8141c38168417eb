internal import Workloads

// To be run under callgrind by `scripts/instructions`: nothing but the one workload.

/// Without arguments: the workloads, and which of them must not allocate. With a name and a number: does it so often.
func run(_ arguments: [String]) throws -> Bool {
    if arguments.isEmpty {
        for workload in Workload.all {
            print(workload.isAllocationFree ? "allocation-free" : "-", workload.name, separator: "\t")
        }
        return true
    }
    guard arguments.count == 2, let count = Int(arguments[1]), count >= 0,
        let workload = Workload.all.first(where: { $0.name == arguments[0] })
    else { return false }
    print(try workload.prepare()(count))
    return true
}

if try !run(Array(CommandLine.arguments.dropFirst())) {
    fatalError("usage: instructions [NAME COUNT]")
}
