/// What happens next, in order of time; a binary heap. Equal times keep the order of their arrival.
struct EventQueue {
    enum Happening {
        case execute(Int)
        case complete(Int)
        case tick
        case client
        case command
        case mishap
        case end
    }

    private struct Entry {
        var time: UInt64
        var order: UInt64
        var happening: Happening

        func isBefore(_ other: Entry) -> Bool {
            time != other.time ? time < other.time : order < other.order
        }
    }

    private var heap: [Entry] = []
    private var order: UInt64 = 0

    var isEmpty: Bool { heap.isEmpty }

    mutating func removeAll() { heap.removeAll(keepingCapacity: true) }

    mutating func add(_ happening: Happening, at time: UInt64) {
        order += 1
        heap.append(Entry(time: time, order: order, happening: happening))
        var index = heap.count - 1
        while index > 0 {
            let parent = (index - 1) / 2
            if !heap[index].isBefore(heap[parent]) { break }
            heap.swapAt(index, parent)
            index = parent
        }
    }

    mutating func next() -> (UInt64, Happening)? {
        guard let first = heap.first else { return nil }
        let last = heap.removeLast()
        if !heap.isEmpty {
            heap[0] = last
            sink()
        }
        return (first.time, first.happening)
    }

    private mutating func sink() {
        var index = 0
        while true {
            let left = index * 2 + 1
            guard left < heap.count else { return }
            let right = left + 1
            let child = right < heap.count && heap[right].isBefore(heap[left]) ? right : left
            guard heap[child].isBefore(heap[index]) else { return }
            heap.swapAt(index, child)
            index = child
        }
    }
}
