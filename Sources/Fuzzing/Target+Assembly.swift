package import MirrorCore
internal import MirrorFormat

extension Target {
    /// A mirror's story, then damage to the superblocks of its disks: never a verdict that the good copies do not bear
    /// out. A disk counts as absent, or as old as the newest copy that it still has.
    static let assembly = assembly(with: .none)

    /// - Parameter mutant: a bug to be built into the verdicts, which must be found.
    package static func assembly(with mutant: Mutant) -> Target {
        Target("assembly", cost: 20) { input throws(Finding) in try judgeStory(&input, mutant) }
    }

    private static func judgeStory(_ input: inout Input, _ mutant: Mutant) throws(Finding) -> String {
        var story = Story(&input, mutant)
        try story.live(&input)
        let images = story.disks.map(\.image)
        for (number, image) in images.enumerated() { input.show("superblock area of disk \(number)", image.area) }
        try require(!images.contains(where: \.isForked), "crashes alone make a fork")
        let past = input.pick(story.past).map(\.image)
        let sound = try Judgement(story, images, &input).check(mutant, &input)
        let latest = sound.serial
        var word = sound.word
        for _ in 0..<input.within(1...4) {
            var damaged = images
            for _ in 0...input.below(4) { input.damage(&damaged, past: past) }
            for (number, image) in damaged.enumerated() { input.show("superblock area of disk \(number)", image.area) }
            let judgement = try Judgement(story, damaged, &input)
            let result = try judgement.check(mutant, &input)
            word = result.word
            guard !result.isRefused else { continue }
            // As long as one disk still knows who is out, whoever lacks something must not be read. Where every copy of
            // the latest record is gone, on every disk that had it, nothing can tell: that is counted.
            let isLacking = judgement.isAnyCurrentLacking
            if result.serial < latest {
                word = isLacking ? "lost writes" : "fell back"
            } else {
                try require(!isLacking, "a plex is current that lacks acknowledged writes")
            }
        }
        return word
    }
}

/// All disks of a story, as a start would find them.
private struct Judgement {
    let candidates: [Candidate]
    /// A disk whose every readable copy came from another disk: nothing on it says so.
    let hasImpostor: Bool

    init(_ story: Story, _ images: [DiskImage], _ input: inout Input) throws(Finding) {
        var candidates: [Candidate] = []
        var hasImpostor = false
        for (disk, image) in images.enumerated() {
            guard case .found(let superblock) = try image.scan(), superblock.record.mirror == story.mirror,
                let newest = image.newest
            else { continue }
            hasImpostor = hasImpostor || !story.disks[disk].wrote(newest.superblock)
            candidates.append(
                Candidate(
                    found: FoundPlex(disk: disk, superblock: superblock), serial: newest.serial,
                    lacks: story.disks[disk].lacks))
        }
        input.shuffle(&candidates)
        self.candidates = candidates
        self.hasImpostor = hasImpostor
    }

    func check(_ mutant: Mutant, _ input: inout Input) throws(Finding) -> (word: String, serial: Int, isRefused: Bool) {
        guard !candidates.isEmpty else { return ("nothing", 0, true) }
        var options = AssemblyOptions()
        options.allowDegraded = input.oneIn(2)
        options.isReadOnly = input.oneIn(8)
        options.mutant = mutant
        let verdict = assemble(candidates.map(\.found), options: options)
        guard !hasImpostor else { return ("impostor", 0, true) }
        let truth = Truth(candidates)
        let word = try truth.check(verdict, options)
        if case .assembled = verdict { return (word, truth.latest.serial, false) }
        return (word, truth.latest.serial, true)
    }

    var isAnyCurrentLacking: Bool {
        let truth = Truth(candidates)
        return candidates.contains { candidate in
            candidate.lacks
                && (truth.record.index(of: candidate.found.superblock.plex).map { truth.holders.contains($0) } ?? false)
        }
    }
}

extension StoryDisk {
    /// Whether a superblock was written to this very disk, under whatever name it had then.
    fileprivate func wrote(_ superblock: Superblock) -> Bool {
        plex == superblock.plex
            || copies.contains { copy in
                if case .whole(let own, _) = copy { own.plex == superblock.plex } else { false }
            }
    }
}

extension Input {
    /// One mishap of one disk's superblocks.
    fileprivate mutating func damage(_ images: inout [DiskImage], past: [DiskImage]) {
        let disk = below(images.count)
        let copy = below(Layout.superblockCopies)
        let other = below(images.count)
        switch below(11) {
        case 0, 1: damage(&images[disk].blocks[copy].bytes)
        case 2: images[disk].blocks[copy] = .blank
        case 3:
            let source = images[disk].blocks[below(Layout.superblockCopies)]
            images[disk].blocks[copy].tear(source, sectors: byte())
        case 4: images[disk].blocks[copy].tear(past[disk].blocks[copy], sectors: byte())
        case 5: images[disk].blocks.swapAt(copy, below(Layout.superblockCopies))
        case 6: images[disk].blocks[copy] = images[other].blocks[copy]
        case 7: images[disk].blocks[copy] = images[other].blocks[below(Layout.superblockCopies)]
        case 8: images[disk].blocks[copy] = past[disk].blocks[copy]
        case 9: images[disk].blocks = Array(repeating: .blank, count: Layout.superblockCopies)
        default:
            // The whole disk is what it was, or all of it is damaged, or one pair.
            switch below(3) {
            case 0: images[disk].blocks = past[disk].blocks
            case 1: for each in 0..<Layout.superblockCopies { damage(&images[disk].blocks[each].bytes) }
            default: for each in [copy, (copy + 2) % 4] { damage(&images[disk].blocks[each].bytes) }
            }
        }
    }
}
