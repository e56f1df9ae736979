// Decodes .eoc pictures to PNG: eocodec_decode BUNDLE.eocm FILE.eoc OUT.png [--symbols FILE] [--max-pixels N]
//
// docs/FORMAT.md specifies the files; the names here are those of that page. From top to bottom: bytes, the bundle and
// its graphs, the range coder, the order of latents, low-pass integers, the walk over the coding units, the picture of
// latents; then the kinds of files, which are ordinary, embedded, lossless and flat; then the parser, pages, and output.
//
// Files may come from anybody: every number is checked before memory depends on it, and every failure is an Error,
// which is one sentence, exit code 1 and no output. Bundles are checked likewise, and their graphs before ONNX Runtime
// sees them: they may hold arithmetic and nothing else.

#include <onnxruntime_cxx_api.h>
#include <openssl/evp.h>
#include <png.h>
#include <zlib.h>
#include <zstd.h>
#ifdef EOCODEC_WEBP
#include <webp/decode.h>
#endif

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace {

using Bytes = std::vector<uint8_t>;
using View = std::span<const uint8_t>;

struct Error : std::runtime_error {
    using runtime_error::runtime_error;
};

struct Damaged : Error {
    using Error::Error;
};

[[noreturn]] void damaged(const std::string& how) { throw Damaged("the file is damaged: " + how); }

// Reads bytes from front to back; throws Short with a complaint when they end too soon.
class Cursor {
 public:
    struct Short : Error {
        using Error::Error;
    };

    Cursor(View bytes, std::string complaint) : bytes_(bytes), complaint_(std::move(complaint)) {}
    size_t at() const { return at_; }
    size_t left() const { return bytes_.size() - at_; }
    View since(size_t start) const { return bytes_.subspan(start, at_ - start); }

    View take(uint64_t count) {
        if (count > left()) throw Short(complaint_);
        at_ += count;
        return bytes_.subspan(at_ - count, count);
    }

    uint64_t number(int size) {
        const View digits = take(size);
        uint64_t value = 0;
        for (int k = size; k-- > 0;) value = value << 8 | digits[k];
        return value;
    }

    uint64_t varint() {
        uint64_t value = 0;
        for (int shift = 0; shift < 35; shift += 7) {
            const uint64_t byte = number(1);
            value |= (byte & 0x7F) << shift;
            if (byte < 0x80) {
                if (shift && !byte) damaged("a number is not in its shortest form");
                return value;
            }
        }
        damaged("a number is longer than five bytes");
    }

 private:
    View bytes_;
    std::string complaint_;
    size_t at_ = 0;
};

Bytes read_file(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    Bytes bytes;
    std::vector<char> piece(1 << 16);
    while (in.read(piece.data(), piece.size()) || in.gcount())
        bytes.insert(bytes.end(), piece.begin(), piece.begin() + in.gcount());
    if (!in.eof()) throw Error(path + ": no such file, or it cannot be read");
    return bytes;
}

// Exactly one zstd frame to the end of `frame`, which must hold `size` bytes, none that is skippable; its checksum, if it
// has one, must be right. Memory grows with what is there, not with what was claimed.
Bytes unzstd(View frame, size_t size, const std::string& complaint) {
    const std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context(ZSTD_createDCtx(), ZSTD_freeDCtx);
    if (!context) throw std::bad_alloc();
    ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, 27);
    Bytes result, piece(ZSTD_DStreamOutSize());
    ZSTD_inBuffer in{frame.data(), frame.size(), 0};
    size_t rest = 1;  // 0 behind a frame
    for (bool more = true; more && result.size() <= size;) {
        ZSTD_outBuffer out{piece.data(), piece.size(), 0};
        rest = ZSTD_decompressStream(context.get(), &out, &in);
        if (ZSTD_isError(rest)) damaged(complaint);
        result.insert(result.end(), piece.begin(), piece.begin() + out.pos);
        more = rest && (in.pos < in.size || out.pos == out.size);
    }
    if (rest || in.pos < in.size || result.size() != size) damaged(complaint);
    return result;
}

// Numbers (channels, rows, columns).
template <class T>
struct Planes {
    int channels = 0, rows = 0, columns = 0;
    std::vector<T> values;

    Planes() = default;
    Planes(int channels, int rows, int columns, T fill = T())
        : channels(channels), rows(rows), columns(columns), values(size_t(channels) * rows * columns, fill) {}

    T* row(int channel, int y) { return values.data() + (size_t(channel) * rows + y) * columns; }
    const T* row(int channel, int y) const { return values.data() + (size_t(channel) * rows + y) * columns; }

    // Rows `top` to `bottom` of the first `count` planes.
    Planes cut(int count, int top, int bottom) const {
        Planes result(count, bottom - top, columns);
        for (int c = 0; c < count; ++c) std::copy(row(c, top), row(c, bottom), result.row(c, 0));
        return result;
    }
};

using Files = std::map<std::string, Bytes>;

// The files of a zip archive, but for those in denoise/.
Files unzip(View zip) {
    constexpr size_t kEndRecord = 22, kEntries = 256, kEntry = 64 << 20, kBundle = 256 << 20;
    const Error broken("the model bundle is damaged, or it is no bundle");
    if (zip.size() < kEndRecord) throw broken;
    size_t end = zip.size() - kEndRecord;  // a comment may follow the record
    const size_t first = end > 65535 ? end - 65535 : 0;
    while (Cursor(zip.subspan(end), broken.what()).number(4) != 0x06054b50)
        if (end-- == first) throw broken;
    Cursor record(zip.subspan(end + 10), broken.what()), entry(zip, broken.what());
    const size_t count = record.number(2);
    record.take(4);
    entry.take(record.number(4));
    size_t total = 0;
    Files files;
    for (size_t k = 0; k < count; ++k) {
        if (entry.number(4) != 0x02014b50) throw broken;
        entry.take(6);
        const auto method = entry.number(2);
        entry.take(4);
        const auto checksum = entry.number(4), packed = entry.number(4), size = entry.number(4);
        const auto name_length = entry.number(2), extra = entry.number(2), comment = entry.number(2);
        entry.take(8);
        Cursor local(zip, broken.what());
        local.take(entry.number(4));
        const View name_bytes = entry.take(name_length);
        const std::string name(name_bytes.begin(), name_bytes.end());
        entry.take(extra + comment);
        total += size;
        if (count > kEntries || size > kEntry || total > kBundle)
            throw Error("the model bundle is larger than allowed");
        if (name.starts_with("denoise/")) continue;
        if (local.number(4) != 0x04034b50) throw broken;
        local.take(22);
        const auto local_name = local.number(2), local_extra = local.number(2);
        local.take(local_name + local_extra);
        const View content = local.take(packed);
        const auto [place, is_new] = files.try_emplace(name, size);
        if (!is_new) throw Error("the model bundle repeats a name");
        Bytes& file = place->second;
        if (method == 0 && packed == size) {
            std::copy(content.begin(), content.end(), file.begin());
        } else if (method == 8) {
            z_stream stream{};
            stream.next_in = const_cast<Bytef*>(content.data());
            stream.avail_in = uInt(packed);
            uint8_t nothing = 0;
            stream.next_out = size ? file.data() : &nothing;  // zlib refuses the null pointer of an empty file
            stream.avail_out = uInt(size);
            if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
            const int state = inflate(&stream, Z_FINISH);
            inflateEnd(&stream);
            if (state != Z_STREAM_END || stream.avail_out) throw broken;
        } else {
            throw broken;
        }
        if (crc32(0, file.data(), uInt(size)) != checksum) throw broken;
    }
    return files;
}

// SHA-256 of what is added to it.
class Digest {
 public:
    Digest() { check(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr)); }

    void add(const void* bytes, size_t size) { check(EVP_DigestUpdate(context_.get(), bytes, size)); }
    void add(const std::string& text) { add(text.data(), text.size()); }

    void add_number(uint64_t value, int size) {
        for (int k = 0; k < size; ++k) {
            const uint8_t byte = value >> 8 * k & 0xFF;
            add(&byte, 1);
        }
    }

    std::string hexadecimal() {
        std::array<uint8_t, EVP_MAX_MD_SIZE> hash{};
        check(EVP_DigestFinal_ex(context_.get(), hash.data(), nullptr));
        std::string text;
        for (int k = 0; k < 32; ++k) {
            text += "0123456789abcdef"[hash[k] >> 4];
            text += "0123456789abcdef"[hash[k] & 15];
        }
        return text;
    }

 private:
    static void check(bool good) {
        if (!good) throw Error("OpenSSL has no SHA-256");
    }

    const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_{EVP_MD_CTX_new(), EVP_MD_CTX_free};
};

constexpr char kParts[] = "parts.json";

// The list of parts as it is hashed; what is there must be on it.
std::string checked_parts(const Files& files) {
    const Error unreadable("the model bundle's list of parts cannot be read");
    std::map<std::string, std::pair<uint64_t, std::string>> known;
    std::string text;
    try {
        const Bytes& content = files.at(kParts);
        const auto groups = nlohmann::json::parse(content.begin(), content.end());
        for (const char* group : {"decoding", "beside"}) {
            for (const auto& [name, entry] : groups.at(group).items()) {  // in order of name
                const auto size = entry.at(0).get<uint64_t>();
                const auto hash = entry.at(1).get<std::string>();
                if (name.find_first_of(" \n") != std::string::npos || !known.try_emplace(name, size, hash).second)
                    throw unreadable;
                if (group[0] == 'd') text += name + " " + std::to_string(size) + " " + hash + "\n";
            }
        }
    } catch (const nlohmann::json::exception&) {
        throw unreadable;
    }
    for (const auto& [name, content] : files) {
        if (name == kParts) continue;
        Digest digest;
        digest.add(content.data(), content.size());
        const auto entry = known.find(name);
        if (entry == known.end() || entry->second != std::pair(uint64_t(content.size()), digest.hexadecimal()))
            throw Error("the model bundle is damaged: " + name + " is not what its list of parts says");
    }
    return text;
}

using ModelId = std::array<uint8_t, 4>;

// The first bytes of SHA-256 over the list of parts, or over names and contents.
ModelId id_of(const Files& files) {
    Digest digest;
    if (files.count(kParts)) {
        digest.add(checked_parts(files));
    } else {
        for (const auto& [name, content] : files) {
            digest.add_number(name.size(), 4);
            digest.add(name);
            digest.add_number(content.size(), 8);
            digest.add(content.data(), content.size());
        }
    }
    std::string hash = digest.hexadecimal();
    // photo and face64 are older than lists of parts.
    if (hash == "ba6e0980bd42ebfc17190da20b1e138fb0528c5ee51cbbba310c59a08e70178b") hash = "26cc94c0";
    if (hash == "03e904950c432b339ba6bc8e8255cda6a035373e91167504c1a854f1a44ce709") hash = "5f2b99a2";
    const auto value = std::stoul(hash.substr(0, 8), nullptr, 16);
    return {uint8_t(value >> 24), uint8_t(value >> 16), uint8_t(value >> 8), uint8_t(value)};
}

std::string hexadecimal(const ModelId& id) {
    char text[9];
    std::snprintf(text, sizeof text, "%02x%02x%02x%02x", id[0], id[1], id[2], id[3]);
    return text;
}

// Symbols 0 … 2R with frequencies that sum to 2^24; they stand for −R … R, of which the outer two are escapes.
struct Table {
    int radius;
    std::vector<uint32_t> cumulative;  // 0 … 2^24
};

// Tables of a bundle: of each f(0) … f(R), the halves of symmetric ones, or all 2R + 1 frequencies.
std::vector<Table> read_tables(View content, bool halves) {
    const Error broken("the model bundle's entropy tables are damaged");
    Cursor in(content, broken.what());
    const auto count = in.number(4);
    if (count < 1 || count > 256) throw broken;
    std::vector<Table> tables;
    while (tables.size() < count) {
        const auto length = in.number(4);
        if (length < 2 || length > in.left() / 4 || !(halves || length % 2)) throw broken;
        std::vector<uint32_t> frequencies;
        for (uint64_t k = 0; k < length; ++k) frequencies.push_back(uint32_t(in.number(4)));
        if (halves) {
            const std::vector<uint32_t> mirrored(frequencies.rbegin(), frequencies.rend() - 1);
            frequencies.insert(frequencies.begin(), mirrored.begin(), mirrored.end());
        }
        Table table{int(frequencies.size() / 2), {0}};
        uint64_t sum = 0;
        for (const uint32_t f : frequencies) {
            if (f < 1 || (sum += f) > 1 << 24) throw broken;
            table.cumulative.push_back(uint32_t(sum));
        }
        if (sum != 1 << 24) throw broken;
        tables.push_back(std::move(table));
    }
    return tables;
}

// Refuses graphs that hold anything but arithmetic of the standard operators on tensors of their own. Field numbers are
// those of onnx.proto: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
class GraphCheck {
 public:
    static void run(View content) {
        int graphs = 0;
        for (const Field& field : fields(content)) {
            if (field.number == 20 || field.number == 25) forbidden("functions or training");
            if (field.number != 7) continue;
            if (++graphs > 1) broken();
            graph(message(field));
        }
        if (!graphs) broken();
    }

 private:
    struct Field {
        uint64_t number;
        std::optional<View> content;  // none: a number
        uint64_t value;
    };

    [[noreturn]] static void broken() { throw Error("the model's graph is damaged"); }
    [[noreturn]] static void forbidden(const std::string& what) {
        throw Error("the model's graph holds what a bundle must not: " + what);
    }

    static uint64_t varint(Cursor& in) {
        uint64_t value = 0;
        for (int shift = 0; shift < 70; shift += 7) {
            const uint64_t byte = in.number(1);
            value |= (byte & 127) << shift;
            if (byte < 128) return value;
        }
        broken();
    }

    static std::vector<Field> fields(View message) {
        Cursor in(message, "the model's graph is damaged");
        std::vector<Field> result;
        while (in.left()) {
            const uint64_t key = varint(in), kind = key & 7;
            if (key >> 32) broken();  // a reader of 32 bits would take it for another
            Field field{key >> 3, {}, 0};
            if (kind == 0)
                field.value = varint(in);
            else if (kind == 1 || kind == 5)
                field.content = in.take(kind == 1 ? 8 : 4);
            else if (kind == 2)
                field.content = in.take(varint(in));
            else
                broken();
            result.push_back(field);
        }
        return result;
    }

    static View message(const Field& field) {
        if (!field.content) broken();
        return *field.content;
    }

    static void graph(View content) {
        int nodes = 0;
        for (const Field& field : fields(content)) {
            if (field.number == 15) forbidden("sparse tensors");
            if (field.number == 5) tensor(message(field));
            if (field.number != 1) continue;
            if (++nodes > 20000) forbidden("more than 20000 nodes");
            node(message(field));
        }
    }

    static void node(View content) {
        static const std::set<std::string> kOperators{
            "Abs",      "Add",        "Cast",       "Clip",    "Concat",    "Constant",     "ConstantOfShape",
            "Conv",     "ConvTranspose", "DepthToSpace", "DequantizeLinear", "Div", "Equal", "Exp", "Expand",
            "Flatten",  "Floor",      "Gather",     "Gemm",    "Greater",   "Identity",     "Less",
            "Log",      "MatMul",     "Max",        "Min",     "Mul",       "Neg",          "Pad",
            "Pow",      "QLinearConv", "QuantizeLinear", "Reciprocal", "ReduceMean", "ReduceSum", "Relu",
            "Reshape",  "Shape",      "Sigmoid",    "Sign",    "Slice",     "Softplus",     "SpaceToDepth",
            "Split",    "Sqrt",       "Squeeze",    "Sub",     "Tanh",      "Transpose",    "Unsqueeze",
            "Where"};
        int operators = 0;
        for (const Field& field : fields(content)) {
            if (field.number != 4 && field.number != 5 && field.number != 7) continue;
            const View value = message(field);
            const std::string text(value.begin(), value.end());
            if (field.number == 7 && !text.empty() && text != "ai.onnx") forbidden("operators of another domain");
            if (field.number == 4 && (++operators > 1 || !kOperators.count(text)))
                forbidden("the operator " + text.substr(0, 40));
            if (field.number == 5) attribute(value);
        }
        if (!operators) forbidden("an operator without a name");
    }

    static void attribute(View content) {
        for (const Field& field : fields(content)) {
            if (field.number == 6 || field.number == 11 || field.number == 22 || field.number == 23)
                forbidden("subgraphs or sparse tensors");
            if (field.number == 5 || field.number == 10) tensor(message(field));
        }
    }

    static void tensor(View content) {
        int rank = 0;
        for (const Field& field : fields(content)) {
            if (field.number == 13 || (field.number == 14 && (field.content || field.value)))
                forbidden("tensors from other files");
            if (field.number == 1 && ++rank > 8) forbidden("tensors of more than eight dimensions");
        }
    }
};

[[noreturn]] void unfit() { throw Error("the model bundle's graphs do not give what they should"); }

// A graph's inputs; their arrays must outlive them.
struct Inputs {
    std::vector<const char*> names;
    std::vector<Ort::Value> values;

    template <class T>
    Inputs& add(const char* name, const std::vector<T>& array, const std::vector<int64_t>& shape) {
        static const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);
        names.push_back(name);
        values.push_back(Ort::Value::CreateTensor<T>(memory, const_cast<T*>(array.data()), array.size(), shape.data(),
                                                     shape.size()));
        return *this;
    }

    template <class T>
    Inputs& add(const char* name, const Planes<T>& a) {
        return a.channels ? add(name, a.values, {1, a.channels, a.rows, a.columns}) : *this;
    }

    // Rows `top` to `bottom` of the first `count` planes; they are copied, unless they are all rows.
    template <class T>
    Inputs& add(const char* name, const Planes<T>& a, int count, int top, int bottom, Planes<T>& copy) {
        if (top || bottom < a.rows) return add(name, copy = a.cut(count, top, bottom));
        const std::vector<int64_t> shape{1, count, a.rows, a.columns};
        static const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);
        if (!count) return *this;
        names.push_back(name);
        values.push_back(Ort::Value::CreateTensor<T>(memory, const_cast<T*>(a.values.data()),
                                                     size_t(count) * a.rows * a.columns, shape.data(), shape.size()));
        return *this;
    }
};

// A graph's output, which must have this type and shape.
template <class T>
std::span<const T> output(const Ort::Value& value, const std::vector<int64_t>& shape) {
    const auto about = value.GetTensorTypeAndShapeInfo();
    if (about.GetElementType() != Ort::TypeToTensorType<T>::type || about.GetShape() != shape) unfit();
    return {value.GetTensorData<T>(), about.GetElementCount()};
}

// An unpacked bundle, of a model for pictures of any size or of a flat one.
class Model {
 public:
    ModelId id;
    bool flat = false;
    std::vector<Table> tables;
    std::vector<std::vector<double>> gain;  // by band and channel; flat: of one band
    // Pictures of any size:
    int levels = 0, axes = 3;                                  // of colour
    std::vector<std::vector<std::vector<uint8_t>>> low_index;  // by colour, kind and class
    double refine_from = 0;                                    // levels
    bool rotated = false, tuned = false;
    std::vector<int> eye;  // by band, 1/16 octave, if tuned
    // Flat:
    int size = 0, rest_step = 0, from_step = 0, tiny = 0;
    std::vector<int> blocks, scale;

    explicit Model(const std::string& path) : files_(unzip(read_file(path))) {
        id = id_of(files_);
        try {
            take_in(Json::parse(file("manifest.json")));
        } catch (const Json::exception&) {
            inconsistent();
        }
    }

    // The model for grey pictures alone in a bundle, which has one colour axis: what it does not say the whole one does.
    struct Grey {};
    Model(const Model& whole, Grey) : id(whole.id), axes(1) {
        const std::string folder = "grey/", manifest = "manifest.json";
        for (const auto& [name, content] : whole.files_)
            if (name.starts_with(folder)) files_[name.substr(folder.size())] = content;
        if (whole.flat || !files_.contains(manifest))
            throw Error("this bundle lacks its part for grey pictures, which the file needs");
        files_.try_emplace("compand.bin", whole.compand_);
        try {
            auto both = Json::parse(whole.file(manifest));
            both.update(Json::parse(file(manifest)));
            if (both.value("kind", "photo") != "photo") inconsistent();
            take_in(both);
        } catch (const Json::exception&) {
            inconsistent();
        }
    }

    // The model that files with so many colour axes are for: this one, or that for grey pictures in its bundle.
    Model& of_axes(int count) {
        if (count == axes) return *this;
        if (!grey_) grey_ = std::make_unique<Model>(*this, Grey{});
        return *grey_;
    }

 private:
    using Json = nlohmann::json;

    void take_in(const Json& manifest) {
        tables = read_tables(file("tables.bin"), true);
        compand_ = file("compand.bin");
        read_manifest(manifest);
        if (tables.size() > 64 || shift_.size() != tables.size() || compand_.size() < 2) inconsistent();
        if (*std::max_element(compand_.begin(), compand_.end()) > 127) inconsistent();
    }

 public:
    bool has(const std::string& name) const { return files_.count(name) > 0; }

    const Bytes& file(const std::string& name) const {
        const auto found = files_.find(name);
        if (found == files_.end()) throw Error("the model bundle has no " + name + ", which this file needs");
        return found->second;
    }

    // What the nets see of a value in 1/16 steps.
    int8_t compand(int64_t v) const {
        const int magnitude = compand_[std::min<uint64_t>(std::abs(v), compand_.size() - 1)];
        return int8_t(v < 0 ? -magnitude : magnitude);
    }

    // The value in steps of a residual m around a mean in 1/16 steps.
    float dequantised(int m, int mean, int index) const {
        const float shift = m ? shift_[index][std::min(std::abs(m), 3) - 1] / 256.0f : 0;
        return float(m) - (m < 0 ? -shift : shift) + float(mean) / 16;
    }

    // A graph's outputs; its session is opened at its first run.
    std::vector<Ort::Value> run(const std::string& graph, const Inputs& in, const std::vector<const char*>& out) {
        auto found = sessions_.find(graph);
        if (found == sessions_.end()) {
            const Bytes& content = file(graph + ".onnx");
            GraphCheck::run(content);
            Ort::SessionOptions options;
            options.DisableMemPattern();
            options.AddConfigEntry("session.intra_op.allow_spinning", "0");  // dozens of sessions take turns
            if (graph != "decoder") {             // of the small nets there are dozens
                options.DisableCpuMemArena();     // theirs would add up
                options.SetIntraOpNumThreads(1);  // for what they take, threads cost more than they bring
            }
            found = sessions_.try_emplace(graph, environment_, content.data(), content.size(), options).first;
        }
        return found->second.Run(Ort::RunOptions(nullptr), in.names.data(), in.values.data(), in.values.size(),
                                 out.data(), out.size());
    }

 private:
    [[noreturn]] static void inconsistent() { throw Error("the model bundle lacks or spoils its manifest"); }

    // A number or a nested list of numbers, each from `lowest` to `highest`.
    template <class T>
    static T read(const Json& value, double lowest, double highest) {
        check(value, lowest, highest, 3);
        return value.get<T>();
    }

    static void check(const Json& value, double lowest, double highest, int depth) {
        if (value.is_array() && depth) {
            for (const Json& entry : value) check(entry, lowest, highest, depth - 1);
        } else if (!value.is_number() || value.get<double>() < lowest || value.get<double>() > highest) {
            inconsistent();
        }
    }

    void read_manifest(const Json& manifest) {
        const std::string kind = manifest.value("kind", "photo");
        if (manifest.at("format") != 1 || (kind != "photo" && kind != "flat"))
            throw Error("the model bundle is of a kind that this program does not know");
        shift_ = read<std::vector<std::array<int, 3>>>(manifest.at("shift"), -65536, 65536);
        flat = kind == "flat";
        if (flat) {
            size = read<int>(manifest.at("size"), 8, 128);
            const size_t latents = size_t(3) * size * size;
            gain = {read<std::vector<double>>(manifest.at("gain"), -100, 100)};
            scale = read<std::vector<int>>(manifest.at("scale"), -(1 << 30), 1 << 30);
            blocks = read<std::vector<int>>(manifest.at("blocks"), 1, double(latents));
            rest_step = read<int>(manifest.at("rest_step"), 0, 65535);
            from_step = read<int>(manifest.value("from_step", Json(0)), 0, 65535);
            tiny = read<int>(manifest.at("tiny"), 0, 3);
            const bool rising = std::is_sorted(blocks.begin(), blocks.end(), std::less_equal());
            if (blocks.empty() || !rising || scale.size() != latents || gain[0].size() != latents) inconsistent();
        } else {
            levels = read<int>(manifest.at("levels"), 1, 8);
            gain = read<std::vector<std::vector<double>>>(manifest.at("gain"), -100, 100);
            low_index = read<decltype(low_index)>(manifest.at("low_index"), 0, double(tables.size() - 1));
            refine_from = read<double>(manifest.at("refine_from"), 0, 1e9);
            rotated = manifest.value("rotated", false);
            tuned = manifest.value("tuned", false);
            if (tuned) eye = read<std::vector<int>>(manifest.at("eye"), -64, 64);
            if (tuned && eye.size() != gain.size()) inconsistent();
            if (gain.size() != size_t(levels) + 1 || low_index.size() != size_t(axes)) inconsistent();
            for (size_t k = 0; k < gain.size(); ++k)
                if (gain[k].size() != size_t(k ? 3 * axes : axes)) inconsistent();
            for (const auto& colour : low_index) {
                const bool empty = std::any_of(colour.begin(), colour.end(), [](auto& kind) { return kind.empty(); });
                if (colour.size() != 6 || empty) inconsistent();
            }
        }
    }

    Files files_;
    Bytes compand_;
    std::unique_ptr<Model> grey_;
    std::vector<std::array<int, 3>> shift_;
    static Ort::Env environment() {  // ONNX Runtime from 1.29 on reports its use unless this is set before
#ifdef _WIN32
        if (!std::getenv("ORT_DISABLE_TELEMETRY")) _putenv_s("ORT_DISABLE_TELEMETRY", "1");
#else
        setenv("ORT_DISABLE_TELEMETRY", "1", 0);
#endif
        return Ort::Env{ORT_LOGGING_LEVEL_FATAL};
    }
    Ort::Env environment_ = environment();
    std::map<std::string, Ort::Session> sessions_;
};

// A stream that no encoder writes; of an embedded stream, its end.
struct Undecodable : Damaged {
    Undecodable() : Damaged("the file is damaged: a segment cannot be decoded") {}
};

// The range decoder of constriction: 32-bit words, 64-bit state, 24-bit probabilities; zeros follow the stream.
class RangeDecoder {
 public:
    RangeDecoder(View stream, std::endian order) : stream_(stream), order_(order) {
        code_ = uint64_t(word()) << 32;
        code_ |= word();
    }

    int categorical(const std::vector<uint32_t>& cumulative) {
        const uint32_t place = quantile();
        const auto next = std::upper_bound(cumulative.begin(), cumulative.end(), place);
        narrow(next[-1], *next);
        return int(next - cumulative.begin()) - 1;
    }

    uint32_t uniform(uint32_t count) {
        const uint32_t share = (1 << 24) / count, symbol = std::min(quantile() / share, count - 1);
        narrow(symbol * share, symbol + 1 < count ? (symbol + 1) * share : 1 << 24);  // the last has what is left over
        return symbol;
    }

    // Yes with probability p / 65536: a frequency of 256 p, and 1 more if p is below one half.
    bool bernoulli(uint32_t p) {
        const uint32_t no = (1 << 24) - 256 * p - (p < 1 << 15);
        const bool yes = quantile() >= no;
        narrow(yes ? no : 0, yes ? 1 << 24 : no);
        return yes;
    }

 private:
    uint32_t word() {
        uint32_t value = 0;
        for (int k = 0; k < 4; ++k, ++at_) {
            const uint32_t byte = at_ < stream_.size() ? stream_[at_] : 0;
            value |= byte << 8 * (order_ == std::endian::little ? k : 3 - k);
        }
        return value;
    }

    uint32_t quantile() {
        scale_ = size_ >> 24;
        const uint64_t place = code_ / scale_;
        if (place >> 24) throw Undecodable();
        return uint32_t(place);
    }

    void narrow(uint64_t from, uint64_t to) {
        code_ -= scale_ * from;
        size_ = scale_ * (to - from);
        if (size_ >> 32) return;
        size_ <<= 32;
        code_ = code_ << 32 | word();
    }

    View stream_;
    std::endian order_;
    size_t at_ = 0;
    uint64_t size_ = ~uint64_t(0), code_ = 0, scale_ = 0;
};

int ceil_divide(int a, int b) { return (a + b - 1) / b; }

// A wanted table of scales: beyond the last one, five more are a low bit that is coded as it is.
struct Scale {
    explicit Scale(int wanted)
        : rest(uint8_t(std::clamp(wanted > 63 ? ceil_divide(wanted - 63, 5) : 0, 0, 12))),
          table(uint8_t(std::clamp(wanted - 5 * rest, 0, 63))) {}

    uint8_t rest, table;
};

// Residuals of a range coder stream, strip by strip.
class SymbolReader {
 public:
    SymbolReader(const std::vector<Table>& tables, View stream, std::endian order = std::endian::little)
        : tables_(tables), coder_(stream, order) {}

    // Residuals for these table indices: grouped by table, each group followed by its escapes.
    std::vector<int32_t> take(const std::vector<uint8_t>& index) {
        std::array<std::vector<uint32_t>, 256> groups;
        for (size_t k = 0; k < index.size(); ++k) groups[index[k]].push_back(uint32_t(k));
        std::vector<int32_t> m(index.size());
        std::vector<uint32_t> escaped;
        for (size_t k = 0; k < groups.size(); ++k) {
            if (groups[k].empty()) continue;
            if (k >= tables_.size()) unfit();
            const Table& table = tables_[k];
            escaped.clear();
            for (const uint32_t place : groups[k]) {
                m[place] = coder_.categorical(table.cumulative) - table.radius;
                if (std::abs(m[place]) == table.radius) escaped.push_back(place);
            }
            escapes(escaped, m);
        }
        return m;
    }

    // A symbol under a table of its own, by its bounds.
    int one(const std::vector<uint32_t>& cumulative) { return coder_.categorical(cumulative); }

    // How far beyond the window places lie, under tables whose last symbols escape: grouped as in `take`. What is
    // there is the last residual of the window on their side, which they are added to.
    void tails(const std::vector<Table>& tables, const std::vector<uint32_t>& places, const std::vector<uint8_t>& index,
               std::vector<int32_t>& m) {
        for (size_t k = 0; k < tables.size(); ++k) {
            const int last = int(tables[k].cumulative.size()) - 2;
            std::vector<uint32_t> escaped;
            for (const uint32_t place : places) {
                if (index[place] != k) continue;
                const int distance = coder_.categorical(tables[k].cumulative);
                m[place] += m[place] < 0 ? -distance : distance;
                if (distance == last) escaped.push_back(place);
            }
            escapes(escaped, m);
        }
    }

    // Residuals m of which these many low bits are coded as they are, behind the symbols of those above.
    std::vector<int32_t> take(const std::vector<uint8_t>& index, const std::vector<uint8_t>& rest) {
        auto m = take(index);
        for (size_t k = 0; k < m.size(); ++k) m[k] = int32_t(uint32_t(m[k]) << rest[k]);
        const int most = rest.empty() ? 0 : *std::max_element(rest.begin(), rest.end());
        for (int r = 1; r <= most; ++r)
            for (size_t k = 0; k < m.size(); ++k)
                if (rest[k] == r) m[k] |= int32_t(coder_.uniform(1u << r));
        return m;
    }

 private:
    void escapes(const std::vector<uint32_t>& places, std::vector<int32_t>& m) {
        std::array<std::vector<uint32_t>, 23> by_length;
        for (const uint32_t place : places) {
            const uint32_t n = coder_.uniform(32);
            if (n >= by_length.size()) damaged("a latent is out of range");
            by_length[n].push_back(place);
        }
        for (int n = 1; n < int(by_length.size()); ++n) {
            std::vector<uint32_t> low;
            for (size_t k = 0; k < by_length[n].size(); ++k) low.push_back(coder_.uniform(1 << std::min(n, 12)));
            for (size_t k = 0; k < low.size(); ++k) {
                if (n > 12) low[k] |= coder_.uniform(1 << (n - 12)) << 12;
                int32_t& value = m[by_length[n][k]];
                const int32_t extra = (1 << n) - 1 + int32_t(low[k]);
                value += value < 0 ? -extra : extra;
            }
        }
    }

    const std::vector<Table>& tables_;
    RangeDecoder coder_;
};

// A low-pass that was cut off: residuals that are certain, and zeros after them. A strip is certain if it comes out
// alike whether zeros or ones follow what is there: the range decoder is monotone, so that all other continuations give
// the same.
class PrefixReader {
 public:
    PrefixReader(const std::vector<Table>& tables, View stream, uint64_t missing)
        : low_(continued(stream, missing, 0x00)),
          high_(continued(stream, missing, 0xFF)),
          first_(tables, low_),
          second_(tables, high_) {}
    PrefixReader(const PrefixReader&) = delete;  // the readers look at its bytes
    PrefixReader& operator=(const PrefixReader&) = delete;

    // See SymbolReader.
    std::vector<int32_t> take(const std::vector<uint8_t>& index) {
        if (!ended_) {
            try {
                auto m = first_.take(index);
                if (m == second_.take(index)) {
                    ++certain;
                    return m;
                }
            } catch (const Damaged&) {  // what no encoder writes, or a guess at the end
            }
            ended_ = true;
        }
        return std::vector<int32_t>(index.size());
    }

    int certain = 0;  // strips

 private:
    static constexpr uint64_t kAhead = 16;  // bytes that stand for those that are missing

    static Bytes continued(View stream, uint64_t missing, uint8_t fill) {
        Bytes bytes(stream.begin(), stream.end());
        bytes.resize(bytes.size() + std::min(missing, kAhead), fill);
        return bytes;
    }

    const Bytes low_, high_;
    SymbolReader first_, second_;
    bool ended_ = false;
};

struct Segment {
    uint64_t units;
    View payload;
};

// The levels that 0 and 1 stand for.
struct Span {
    int low = 0, high = 255;
};

struct File {
    ModelId model{};
    int width = 0, height = 0, step = 0, tuning = 0;
    int axes = 3;  // of colour; 1: by the model for grey pictures in the bundle
    bool grey = false, embedded = false;
    bool page = false;  // segments are files of photographs
    bool deep = false;  // samples have 16 bits
    Span span;
    bool luma = false;  // there are no chroma units
    bool webp = false;  // streams of WebP are allowed
    std::optional<View> alpha, offsets, shifts, lossless, choice;  // choice: of tables
    View layer;  // of a page: places of photographs and what is exact
    std::vector<Segment> segments;
    Bytes stream;  // embedded
};

constexpr uint8_t kWebpSignature = 0x2F;  // the first byte of a stream

// R, G, B of every pixel of a WebP stream inside a file, which must be of the picture's size. `what` names it.
Bytes unwebp(const File& file, View stream, const std::string& what) {
    constexpr int kMaxEdge = 16383, kMaxPixels = 1 << 26;
    if (!file.webp) damaged(what + " is of a kind that its flags do not name");
    const Damaged broken("the file is damaged: " + what + " is a WebP stream that cannot be read");
    if (stream.size() < 5 || stream[0] != kWebpSignature || std::max(file.width, file.height) > kMaxEdge ||
        int64_t(file.width) * file.height > kMaxPixels)
        throw broken;
    const auto sides = Cursor(stream.subspan(1), broken.what()).number(4);
    if (int(sides & 0x3FFF) != file.width - 1 || int(sides >> 14 & 0x3FFF) != file.height - 1) throw broken;
#ifdef EOCODEC_WEBP
    Bytes webp{'R', 'I', 'F', 'F', 0, 0, 0, 0, 'W', 'E', 'B', 'P', 'V', 'P', '8', 'L', 0, 0, 0, 0};
    const size_t even = stream.size() + (stream.size() & 1);
    for (int k = 0; k < 4; ++k) {
        webp[4 + k] = uint8_t((even + 12) >> 8 * k);
        webp[16 + k] = uint8_t(stream.size() >> 8 * k);
    }
    webp.insert(webp.end(), stream.begin(), stream.end());
    webp.resize(20 + even);
    Bytes rgb(size_t(3) * file.width * file.height);
    if (!WebPDecodeRGBInto(webp.data(), webp.size(), rgb.data(), rgb.size(), 3 * file.width)) throw broken;
    return rgb;
#else
    throw Error(what + " is a WebP stream, which this program was built without a reader for: use one with libwebp, the "
                       "Python decoder or the library");
#endif
}

// The streams of a file's segments, in the order of their units, of which there are `most`.
class Streams {
 public:
    Streams(const std::vector<Table>& tables, const std::vector<Segment>& segments, uint64_t most)
        : tables_(tables), segments_(segments) {
        for (const Segment& s : segments) units += s.units;
        if (units > most) damaged("it has more coding units than the model");
    }

    // The stream that holds a unit; none if the file ends before it.
    SymbolReader* of(uint64_t unit) {
        while (unit >= end_) {
            if (next_ == segments_.size()) return nullptr;
            end_ += segments_[next_].units;
            reader_.emplace(tables_, segments_[next_++].payload);
        }
        return &*reader_;
    }

    uint64_t units = 0;  // that are there

 private:
    const std::vector<Table>& tables_;
    const std::vector<Segment>& segments_;
    std::optional<SymbolReader> reader_;
    size_t next_ = 0;
    uint64_t end_ = 0;
};

constexpr int kPhases[4][2] = {{0, 0}, {1, 1}, {0, 1}, {1, 0}};  // (row, column) in a 2×2 quad
constexpr int kLevelUnits = 6;

struct Size {
    int rows, columns;
};

int log2_of(int n) { return int(std::bit_width(unsigned(n))) - 1; }
int power_from(int n) { return int(std::bit_ceil(unsigned(n))); }

// Sizes of a picture's bands: k = 0 is the low-pass, then come details L … 1.
struct Geometry {
    int levels, width, height;
    bool all = false;  // whether what lies in the padding is coded too
    int axes = 3;      // of colour

    int level(int k) const { return levels + 1 - std::max(k, 1); }
    int band(int level) const { return levels + 1 - level; }

    Size grid(int level) const {  // quads, padding included
        const int multiple = 2 << levels, n = 1 << (levels - level);
        return {ceil_divide(height, multiple) * n, ceil_divide(width, multiple) * n};
    }

    template <class T>
    Planes<T> planes(int k) const {
        const Size quads = grid(level(k));
        return Planes<T>(k ? 3 * axes : axes, 2 * quads.rows, 2 * quads.columns);
    }

    Size inside(int k) const {  // what is coded
        const Size quads = grid(level(k));
        const int n = 1 << level(k);
        if (all) return {2 * quads.rows, 2 * quads.columns};
        return {std::min(ceil_divide(height, n) + 1, 2 * quads.rows),
                std::min(ceil_divide(width, n) + 1, 2 * quads.columns)};
    }
};

// A coding unit of a level: passes 0 … 3 are of luma, 4 and 5 of chroma. A strip's planes are in coding order.
struct Unit {
    int number, level, pass;
    bool rotated = false;

    bool luma() const { return pass < 4; }
    int phases() const { return luma() ? 1 : 2; }  // of plain passes
    int channels() const { return luma() ? 3 : 6; }
    int planes() const { return phases() * channels(); }
    int channel(int plane) const { return (luma() ? 0 : 3) + plane % channels(); }  // of the band
    auto& place(int plane) const {                                                  // (row, column) in the quads
        const int c = channel(plane), turn = rotated ? c % 3 : 0;
        if (luma()) return kPhases[pass ^ turn];
        return kPhases[(2 * (pass - 4) + plane / channels() + 2 * (rotated ? (c / 3 + turn) % 2 : 0)) % 4];
    }
    int context() const { return luma() ? 3 * pass : 12 + 12 * (pass - 4); }  // planes that its net sees
    std::string graph() const {
        return (luma() ? "luma" : "chroma") + std::to_string(level) + "_" + std::to_string(pass % 4);
    }

    // Rows and columns of a plane's phase, of `all` of the band's.
    Size part(int plane, Size all) const {
        return {(all.rows - place(plane)[0] + 1) / 2, (all.columns - place(plane)[1] + 1) / 2};
    }
};

struct Place {
    int plane, y, x;  // in a strip
};

// What is coded of the planes from `first` on to `last` of a strip of so many rows, in order.
std::vector<Place> coded(const Unit& unit, int first, int last, Size inside, int top, int rows) {
    std::vector<Place> places;
    for (int plane = first; plane < last; ++plane) {
        const Size part = unit.part(plane, inside);
        for (int y = 0; y < std::min(rows, part.rows - top); ++y)
            for (int x = 0; x < part.columns; ++x) places.push_back({plane, y, x});
    }
    return places;
}

int activity_class(int64_t activity) {
    const int a = int(std::min<int64_t>(activity, 1 << 20)), n = log2_of(std::max(a, 1)) + 1;
    return a < 4 ? a : 2 * n - 2 + (a >> (n - 2) & 1);
}

// Repeats the last row and column inside the picture beyond it.
void pad(Planes<int32_t>& q, Size inside) {
    for (int c = 0; c < q.channels; ++c) {
        for (int y = 0; y < q.rows; ++y) {
            int32_t* row = q.row(c, y);
            if (y >= inside.rows) std::copy_n(q.row(c, inside.rows - 1), q.columns, row);
            std::fill(row + inside.columns, row + q.columns, row[inside.columns - 1]);
        }
    }
}

// What is added to the table indices of every unit, the low-pass first: half a byte each, the lower one first.
std::vector<int> shifts_of(const File& file, size_t units) {
    std::vector<int> result;
    for (size_t k = 0; file.shifts && k < file.shifts->size(); ++k)
        for (const int half : {(*file.shifts)[k] & 15, (*file.shifts)[k] >> 4}) {
            if (!half || (result.size() >= units && (result.size() > units - 1 + units % 2 || half != 8)))
                damaged("its shifts of tables are out of range");
            result.push_back(half - 8);
        }
    result.resize(units);
    return result;
}

void move_tables(std::vector<uint8_t>& index, int shift) {
    for (uint8_t& i : index)
        if (shift) i = uint8_t(std::clamp(i + shift, 0, 63));
}

// q (axes, rows, columns), `shift` added to the table indices; without a reader all residuals are zero.
template <class Reader>
Planes<int32_t> low_pass(const Model& model, const Geometry& geometry, int step, Reader* reader, int shift = 0) {
    const auto [rows, columns] = geometry.inside(0);
    auto q = geometry.planes<int32_t>(0);
    std::vector<uint8_t> index;
    std::vector<std::pair<int32_t*, int32_t>> strip;  // places and predictions
    const auto code = [&] {
        if (index.empty()) return;  // no strip
        move_tables(index, shift);
        const auto m = reader ? reader->take(index) : std::vector<int32_t>(index.size());
        for (size_t k = 0; k < strip.size(); ++k) *strip[k].first = strip[k].second + m[k];
        index.clear();
        strip.clear();
    };
    for (int c = 0; c < q.channels; ++c) {
        index.push_back(uint8_t(std::clamp(69 - (5 * (step - 32768) >> 11), 0, 63)));
        strip.emplace_back(q.row(c, 0), 0);
        code();
    }
    enum { kDiagonal, kAlongRow, kAlongColumn };
    for (int s = power_from(std::max(rows, columns)) / 2; s >= 1; s /= 2) {
        for (int both = 0; both < 3 * q.channels; ++both) {
            const int c = both / 3, pass = both % 3;
            const auto& by_class = model.low_index[c][2 * std::min(log2_of(s), 2) + (pass != kDiagonal)];
            for (int y = pass == kAlongRow ? 0 : s; y < rows; y += 2 * s) {
                const int up = y >= s ? y - s : y + s, down = y + s < rows ? y + s : y - s;
                for (int x = pass == kAlongColumn ? 0 : s; x < columns; x += 2 * s) {
                    const int left = x >= s ? x - s : x + s, right = x + s < columns ? x + s : x - s;
                    const auto at = [&](int row, int column) { return int64_t(q.row(c, row)[column]); };
                    std::array<int64_t, 4> four;  // for two passes those along, then those across
                    if (pass == kDiagonal) {
                        four = {at(up, left), at(up, right), at(down, left), at(down, right)};
                    } else if (pass == kAlongRow) {
                        four = {at(y, left), at(y, right)};
                        four[2] = rows > s ? at(up, x) : four[0];
                        four[3] = rows > s ? at(down, x) : four[1];
                    } else {
                        four = {at(up, x), at(down, x)};
                        four[2] = columns > s ? at(y, left) : four[0];
                        four[3] = columns > s ? at(y, right) : four[1];
                    }
                    const auto [least, most] = std::minmax_element(four.begin(), four.end());
                    const size_t k = activity_class(*most - *least);
                    index.push_back(by_class[std::min(k, by_class.size() - 1)]);
                    strip.emplace_back(&q.row(c, y)[x], int32_t((four[0] + four[1] + four[2] + four[3] + 2) >> 2));
                }
            }
            code();
        }
    }
    pad(q, {rows, columns});
    return q;
}

// What the walk asks for; planes are those of a strip, whose first row is `top`.
class StripCoder {
 public:
    virtual ~StripCoder() = default;
    virtual bool wants(int unit) = 0;                           // before every level
    virtual void begin(const Unit&) {}                          // before every unit
    virtual bool postpones(const Unit&) { return false; }       // whether this unit and those after it may come later
    virtual Planes<int8_t> known(int, int, int) { return {}; }  // that feature nets see besides: level, top, bottom
    virtual Planes<int8_t> condition(int, int, int) = 0;        // what nets see of the step, likewise
    // Values in 1/16 steps, which later nets see.
    virtual Planes<int32_t> strip(const Unit& unit, int top, const Planes<int32_t>& mean,
                                  const Planes<uint8_t>& index) = 0;
};

// Visits the coding units in order and runs their nets. These also see the rows next to a strip, as far as they reach:
// what they give does not depend on strips.
class Walk {
    struct Strip {
        int top, bottom;  // rows of the grid
        int from, to;     // with those that nets see
        Planes<int8_t> condition;
    };

 public:
    Walk(Model& model, const Geometry& geometry, std::string folder, bool rotated, bool luma = false, int fine = 0)
        : model_(model), geometry_(geometry), folder_(std::move(folder)), rotated_(rotated), luma_(luma), fine_(fine) {}

    // What is left of a level, whose coder postponed some units.
    struct Rest {
        Unit next;
        Planes<uint8_t> feature;
        Planes<int8_t> seen;
        std::vector<Strip> strips;
    };

    // Codes all levels, given the low-pass in 1/16 steps.
    void details(const Planes<int32_t>& low, StripCoder& coder) {
        const int axes = low.channels;
        Planes<int8_t> coarser(8 * axes, low.rows / 2, low.columns / 2);
        for (int k = 0; k < coarser.channels; ++k) {
            const auto [i, j] = kPhases[k / (2 * axes)];
            const bool down = k % (2 * axes) >= axes;
            for (int y = i; y < low.rows; y += 2) {
                const int32_t* here = low.row(k % axes, y);
                const int32_t* next = low.row(k % axes, std::min(y + down, low.rows - 1));
                for (int x = j; x < low.columns; x += 2) {
                    const int64_t gradient = int64_t(next[std::min(x + !down, low.columns - 1)]) - here[x];
                    coarser.row(k, y / 2)[x / 2] = compand(gradient);
                }
            }
        }
        Planes<uint8_t> feature;
        int number = 1;
        for (int level = geometry_.levels; level > 0 && coder.wants(number); --level, number += kLevelUnits) {
            feature = features(level, coarser, feature, coder);
            coarser = code(level, number, feature, coder);
        }
    }

    // Codes the units that were postponed.
    void finish(Rest& rest, StripCoder& coder) {
        const Size grid = geometry_.grid(rest.next.level);
        Planes<int8_t> result(9, 2 * grid.rows, 2 * grid.columns);
        for (Unit unit = rest.next; unit.pass < kLevelUnits; ++unit.pass, ++unit.number)
            code_unit(unit, rest.feature, rest.strips, rest.seen, result, coder);
    }

    std::map<int, Rest> rests;  // by level

 private:
    int8_t compand(int64_t v) const { return model_.compand((v + (1 << fine_ >> 1)) >> fine_); }

    std::vector<Strip> strips(int level, int reach, StripCoder& coder) const {
        const Size grid = geometry_.grid(level);
        const int most = std::max(2, 65536 / grid.columns / 2 * 2);
        std::vector<Strip> result;
        for (int top = 0; top < grid.rows; top += most) {
            const int bottom = std::min(top + most, grid.rows);
            const int from = std::max(0, top - reach), to = std::min(grid.rows, bottom + reach);
            result.push_back({top, bottom, from, to, coder.condition(level, from, to)});
        }
        return result;
    }

    // A strip's rows of an output.
    template <class T, class Result>
    static Planes<Result> rows_of(const Ort::Value& value, int channels, const Strip& s) {
        const int rows = s.to - s.from, columns = s.condition.columns;
        const auto values = output<T>(value, {1, channels, rows, columns});
        Planes<Result> result(channels, s.bottom - s.top, columns);
        for (int c = 0; c < channels; ++c)
            std::copy_n(values.data() + (size_t(c) * rows + s.top - s.from) * columns,
                        size_t(result.rows) * columns, result.row(c, 0));
        return result;
    }

    Planes<uint8_t> features(int level, const Planes<int8_t>& coarser, const Planes<uint8_t>& previous,
                             StripCoder& coder) {
        const Size grid = geometry_.grid(level);
        Planes<uint8_t> result;
        for (const Strip& s : strips(level, 2, coder)) {
            Planes<int8_t> around;
            Planes<uint8_t> before;
            const auto known = coder.known(level, s.from, s.to);
            Inputs in;
            in.add("coarser", coarser, coarser.channels, s.from, s.to, around).add("condition", s.condition);
            in.add("previous", previous, previous.channels, s.from / 2, s.to / 2, before).add("known", known);
            const auto out = model_.run(folder_ + "/feature" + std::to_string(level), in, {"feature"});
            const auto shape = out[0].GetTensorTypeAndShapeInfo().GetShape();
            if (shape.size() != 4 || shape[1] < 1 || shape[1] > 4096) unfit();
            if (!result.channels) result = Planes<uint8_t>(int(shape[1]), grid.rows, grid.columns);
            const auto part = rows_of<uint8_t, uint8_t>(out[0], result.channels, s);
            for (int c = 0; c < part.channels; ++c)
                std::copy_n(part.row(c, 0), size_t(part.rows) * part.columns, result.row(c, s.top));
        }
        return result;
    }

    // Codes a level's units; returns its latents (3 axes, rows, columns), companded.
    Planes<int8_t> code(int level, int number, const Planes<uint8_t>& feature, StripCoder& coder) {
        const Size grid = geometry_.grid(level);
        Planes<int8_t> seen(24 + 12, grid.rows, grid.columns);
        Planes<int8_t> result(3 * geometry_.axes, 2 * grid.rows, 2 * grid.columns);
        const auto all = strips(level, 2, coder);
        for (int pass = 0; pass < kLevelUnits; ++pass) {
            const Unit unit{number + pass, level, pass, rotated_};
            if (luma_ && !unit.luma()) break;
            if (coder.postpones(unit)) {
                rests[level] = {unit, feature, std::move(seen), all};
                break;
            }
            coder.begin(unit);
            code_unit(unit, feature, all, seen, result, coder);
        }
        return result;
    }

    // Codes a unit; its latents come into `seen`, which later nets of the level see, and into `result`.
    void code_unit(const Unit& unit, const Planes<uint8_t>& feature, const std::vector<Strip>& strips,
                   Planes<int8_t>& seen, Planes<int8_t>& result, StripCoder& coder) {
        for (const Strip& s : strips) {
            Planes<uint8_t> around;
            Planes<int8_t> context;
            Inputs in;
            in.add("feature", feature, feature.channels, s.from, s.to, around).add("condition", s.condition);
            in.add("seen", seen, unit.context(), s.from, s.to, context);
            const auto out = model_.run(folder_ + "/" + unit.graph(), in, {"mean", "index"});
            const auto mean = rows_of<int16_t, int32_t>(out[0], unit.planes(), s);
            const auto index = rows_of<uint8_t, uint8_t>(out[1], unit.planes(), s);
            if (*std::max_element(index.values.begin(), index.values.end()) >= model_.tables.size()) unfit();
            const auto values = coder.strip(unit, s.top, mean, index);
            for (int plane = 0; plane < unit.planes(); ++plane) {
                const auto [i, j] = unit.place(plane);
                for (int y = 0; y < values.rows; ++y) {
                    int8_t* beside = seen.row(unit.context() + plane, s.top + y);
                    int8_t* target = result.row(unit.channel(plane), 2 * (s.top + y) + i) + j;
                    for (int x = 0; x < values.columns; ++x)
                        target[2 * x] = beside[x] = compand(values.row(plane, y)[x]);
                }
            }
        }
    }

    Model& model_;
    const Geometry geometry_;
    const std::string folder_;
    const bool rotated_, luma_;  // luma: chroma units are not there, and zero
    const int fine_;             // k: nets see values in steps that are 2^k times those of the file
};

// What the nets see of a step's code, in 1/16 octave around 32 levels.
int condition_of(int step) { return (step - 32768 - 5 * 2048 + 64) >> 7; }

double delta_of(int step) { return std::exp2((step - 32768) / 2048.0) / 255; }  // 0 … 1

using Samples = std::vector<uint16_t>;  // of 8 or 16 bits

uint16_t to_level(float value, float most = 255) {
    return uint16_t(std::floor((value > 0 ? std::min(value, 1.0f) : 0) * most + 0.5f));
}

using Latents = std::vector<Planes<float>>;  // by band

// The steps of a file: Δ, how much the bands follow the eye, and the map of steps in 1/16 octave.
class Fineness {
 public:
    Fineness(const Model& model, const File& file) : model_(model),
          step_(file.step),
          tuning_(file.tuning),
          fine_(file.deep ? std::max(0, -((file.step - 32768) >> 11)) : 0) {
        if ((file.tuning || file.offsets) && !model.tuned)
            damaged("its steps differ, which its model does not know");
        if (!file.offsets) return;
        const int block = 2 << model.levels;
        const std::string complaint = "its map of steps cannot be read";
        offsets_ = Planes<int8_t>(1, ceil_divide(file.height, block), ceil_divide(file.width, block));
        auto bytes = unzstd(*file.offsets, offsets_.values.size(), complaint);
        for (size_t k = 0; k < bytes.size(); ++k) {  // differences of rows
            if (k >= size_t(offsets_.columns)) bytes[k] += bytes[k - offsets_.columns];
            offsets_.values[k] = int8_t(bytes[k]);
            if (std::abs(offsets_.values[k]) > 32) damaged(complaint);
        }
    }

    int step() const { return step_; }
    int tuning() const { return tuning_; }
    int fine() const { return fine_; }  // k, see "Fine steps"
    const Planes<int8_t>& offsets() const { return offsets_; }  // without planes: none

    // Code of the step of a band; it may lie outside the range of a header's.
    int code(int band) const { return tuning_ ? step_ + (tuning_ * model_.eye[band] * 128 >> 5) : step_; }

    // The map on a grid of 2^log places a block.
    int at(int row, int column, int log) const {
        return offsets_.channels ? offsets_.row(0, row >> log)[column >> log] : 0;
    }

    // The step of every latent of a row of a band, 0 … 1, where a band's own is `step`.
    float step_at(float step, int band, int row, int column) const {
        const int a = band ? at(row, column, band) : 0;
        return a ? step * std::exp2(float(a) / 16) : step;
    }

    // What nets see of rows of a level's quads.
    Planes<int8_t> condition(int band, Size rows, int columns) const {
        const auto [top, bottom] = rows;
        Planes<int8_t> planes(1 + model_.tuned, bottom - top, columns, int8_t(tuning_));
        const int base = condition_of(code(band) + 2048 * fine_);
        for (int y = top; y < bottom; ++y)
            for (int x = 0; x < columns; ++x)
                planes.row(0, y - top)[x] = int8_t(std::clamp(base + at(y, x, band - 1), -80, 48));
        return planes;
    }

 private:
    const Model& model_;
    const int step_, tuning_, fine_;
    Planes<int8_t> offsets_;
};

// What the decoder is told where Δ is too fine for its refinement; where the picture then is that of the flow alone.
constexpr double kTooFine = 1e-4, kFlowAlone = 1e-6;

// The picture (rows, columns, 3) of latents at step Δ, 0 … 1; large ones in tiles with a halo, which leaves no seams.
// What a file says of its steps besides is for models that are `tuned`.
Samples synthesise(Model& model, const Geometry& geometry, const Latents& latents, double delta,
                   const Fineness* fineness = nullptr, double too_fine = kTooFine, Span span = {}) {
    constexpr int kTile = 1024, kHalo = 128, kWhole = 1 << 21;
    const int width = geometry.width, height = geometry.height, bands = int(latents.size());
    const Size padded{latents[0].rows << geometry.levels, latents[0].columns << geometry.levels};
    const bool whole = int64_t(padded.rows) * padded.columns <= kWhole;
    const int edge = whole ? std::max(padded.rows, padded.columns) : kTile;
    const auto told = [&](int a) {  // of a place where the map says a
        const double step = delta * std::exp2(a / 16.0);
        return float(step * 255 < model.refine_from ? too_fine : step);
    };
    const bool mapped = fineness && fineness->offsets().channels;
    const Planes<float> tune(1, 1, 1, float(fineness ? fineness->tuning() / 32.0 : 0));
    std::vector<std::string> names{"low"};
    for (int k = 1; k < bands; ++k) names.push_back("detail" + std::to_string(geometry.level(k)));
    Samples rgb(size_t(3) * width * height);
    for (int top = 0; top < height; top += edge) {
        for (int left = 0; left < width; left += edge) {
            const int up = std::max(0, top - kHalo), down = std::min(padded.rows, top + edge + kHalo);
            const int west = std::max(0, left - kHalo), east = std::min(padded.columns, left + edge + kHalo);
            Inputs in;
            Latents parts(bands);
            for (int k = 0; k < bands; ++k) {
                const int n = geometry.level(k);  // latents are 2^n pixels apart
                parts[k] = Planes<float>(latents[k].channels, (down - up) >> n, (east - west) >> n);
                for (int c = 0; c < parts[k].channels; ++c)
                    for (int y = 0; y < parts[k].rows; ++y)
                        std::copy_n(latents[k].row(c, (up >> n) + y) + (west >> n), parts[k].columns,
                                    parts[k].row(c, y));
                in.add(names[k].c_str(), parts[k]);
            }
            // On the grid of half the resolution, where a block has 2^levels places.
            Planes<float> step(1, mapped ? (down - up) / 2 : 1, mapped ? (east - west) / 2 : 1, told(0));
            for (int y = 0; mapped && y < step.rows; ++y)
                for (int x = 0; x < step.columns; ++x)
                    step.row(0, y)[x] = told(fineness->at(up / 2 + y, west / 2 + x, geometry.levels));
            if (model.tuned)
                in.add("step", step).add("tune", tune);
            else
                in.add("step", step.values, {1});
            const auto out = model.run("decoder", in, {"picture"});
            const size_t rows = down - up, columns = east - west;
            const int channels = geometry.axes;  // with one axis pictures are grey
            const auto picture = output<float>(out[0], {1, channels, int64_t(rows), int64_t(columns)});
            for (int c = 0; c < 3; ++c)
                for (int y = top; y < std::min(top + edge, height); ++y)
                    for (int x = left; x < std::min(left + edge, width); ++x)
                        rgb[(size_t(y) * width + x) * 3 + c] = uint16_t(
                            span.low + to_level(picture[(c % channels * rows + y - up) * columns + x - west],
                                                span.high - span.low));
        }
    }
    return rgb;
}

// The rounded mean of a pixel's three levels in place of each.
void make_grey(Samples& rgb) {
    for (size_t k = 0; k < rgb.size(); k += 3) {
        const auto mean = uint16_t((rgb[k] + rgb[k + 1] + rgb[k + 2] + 1) / 3);
        std::fill_n(&rgb[k], 3, mean);
    }
}

struct Decoded {
    Samples rgb;                   // (rows, columns, 3)
    std::vector<int32_t> symbols;  // what --symbols writes
};

// Ordinary files: a strip's residuals around their means, dequantised at once.
class Ordinary final : public StripCoder {
 public:
    Ordinary(Model& model, const File& file, bool with_symbols)
        : model_(model),
          fineness_(model, file),
          geometry_{model.levels, file.width, file.height, fineness_.fine() > 0, model.axes},
          luma_(file.luma),
          deep_(file.deep),
          span_(file.span),
          shifts_(shifts_of(file, 1 + kLevelUnits * size_t(model.levels))),
          streams_(model.tables, file.segments, 1 + kLevelUnits * uint64_t(model.levels)) {
        corrections_.resize(128 * size_t(model.levels));
        if (fineness_.fine() && file.choice && !file.choice->empty())
            corrections_ = unzstd(*file.choice, corrections_.size(), "its choice of tables cannot be read");
        for (int k = 0; k <= model.levels; ++k) {
            latents_.push_back(geometry_.planes<float>(k));
            if (with_symbols) values_.push_back(geometry_.planes<int32_t>(k));
            steps_.emplace_back();
            for (const double g : model.gain[k])
                steps_.back().push_back(float(delta_of(fineness_.code(k)) * std::exp(g)));
        }
    }

    Decoded decode() {
        auto q = low_pass(model_, geometry_, fineness_.code(0), streams_.of(0), shifts_[0]);
        for (int c = 0; c < q.channels; ++c)
            std::transform(q.row(c, 0), q.row(c + 1, 0), latents_[0].row(c, 0),
                           [&](int32_t value) { return float(value) * steps_[0][c]; });
        if (!values_.empty()) values_[0] = q;
        for (int32_t& value : q.values) value = 16 * std::clamp(value, -(1 << 24), 1 << 24);
        Walk(model_, geometry_, "entropy", model_.rotated, luma_, fineness_.fine()).details(q, *this);
        const double too_fine = (luma_ || deep_) && !fineness_.offsets().channels ? kFlowAlone : kTooFine;
        Decoded result;
        result.rgb = synthesise(model_, geometry_, latents_, delta_of(fineness_.step()), &fineness_, too_fine, span_);
        for (const auto& band : values_)
            result.symbols.insert(result.symbols.end(), band.values.begin(), band.values.end());
        return result;
    }

 private:
    bool wants(int unit) override { return uint64_t(unit) < streams_.units; }

    Planes<int8_t> condition(int level, int top, int bottom) override {
        return fineness_.condition(geometry_.band(level), {top, bottom}, geometry_.grid(level).columns);
    }

    Planes<int32_t> strip(const Unit& unit, int top, const Planes<int32_t>& mean,
                          const Planes<uint8_t>& index) override {
        const int band = geometry_.band(unit.level), fine = fineness_.fine();
        const auto places = coded(unit, 0, unit.planes(), geometry_.inside(band), top, mean.rows);
        Planes<int32_t> values(mean.channels, mean.rows, mean.columns);  // first residuals, which are zero outside
        if (SymbolReader* reader = streams_.of(unit.number)) {
            std::vector<uint8_t> tables, rest;
            const size_t group = 2 * (unit.level - 1) + !unit.luma();
            for (const auto& [plane, y, x] : places) {
                const int i = index.row(plane, y)[x];
                tables.push_back(uint8_t(i));
                if (!fine) continue;
                const Scale scale(i + 5 * fine + int8_t(corrections_[64 * group + i]));
                tables.back() = scale.table;
                rest.push_back(scale.rest);
            }
            if (!fine) move_tables(tables, shifts_[unit.number]);
            const auto m = fine ? reader->take(tables, rest) : reader->take(tables);
            for (size_t k = 0; k < m.size(); ++k) values.row(places[k].plane, places[k].y)[places[k].x] = m[k];
        }
        for (int plane = 0; plane < values.channels; ++plane) {
            const auto [i, j] = unit.place(plane);
            const int channel = unit.channel(plane);
            for (int y = 0; y < values.rows; ++y) {
                const int row = 2 * (top + y) + i;
                float* latent = latents_[band].row(channel, row) + j;
                for (int x = 0; x < values.columns; ++x) {
                    int32_t& value = values.row(plane, y)[x];
                    const auto mu = int32_t(uint32_t(mean.row(plane, y)[x]) << fine);
                    const float step = fineness_.step_at(steps_[band][channel], band, row, 2 * x + j);
                    const float around = fine ? float(value) + float(mu) / 16
                                              : model_.dequantised(value, mu, index.row(plane, y)[x]);
                    latent[2 * x] = around * step;
                    value = int32_t(16 * uint32_t(value) + uint32_t(mu));  // what no encoder writes may overflow
                }
            }
        }
        for (const auto& [plane, y, x] : places) {
            if (values_.empty()) break;
            const auto [i, j] = unit.place(plane);
            values_[band].row(unit.channel(plane), 2 * (top + y) + i)[2 * x + j] = values.row(plane, y)[x];
        }
        return values;
    }

    Model& model_;
    const Fineness fineness_;
    const Geometry geometry_;
    const bool luma_, deep_;  // luma alone; 16 bits
    const Span span_;
    Bytes corrections_;       // of indices, by level and axis
    const std::vector<int> shifts_;  // of indices, by unit
    Streams streams_;
    std::vector<std::vector<float>> steps_;  // by band and channel, where the map has nothing to say
    Latents latents_;
    std::vector<Planes<int32_t>> values_;  // for symbols: v = 16 m + μ, zero outside
};

// Yes/no decisions of an embedded stream, and where it ends. Every call throws Undecodable at the end.
class DecisionReader {
 public:
    explicit DecisionReader(View stream)
        : coder_(stream, std::endian::little), available_(stream.size()), cost_(65537) {
        for (int p = 1; p <= 65536; ++p)  // powers of two must not depend on the last bit of log2
            cost_[p] = uint32_t(std::ceil((16 - std::log2(double(p))) * kBit - 1e-6)) + 1;
    }

    bool decide(uint16_t p) {
        const bool yes = coder_.bernoulli(p);
        spent_ += cost_[yes ? p : 65536 - p];
        return yes;
    }

    int number(int count) {
        const int value = int(coder_.uniform(count));
        spent_ += uint64_t(std::ceil(kBit * std::log2(double(count))));
        return value;
    }

    // The end of a group, which counts only if the stream is long enough for it.
    void group() const {
        if ((spent_ + 32 * kBit + 8 * kBit - 1) / (8 * kBit) > available_) throw Undecodable();
    }

 private:
    static constexpr uint64_t kBit = 4096;

    RangeDecoder coder_;
    const uint64_t available_;
    std::vector<uint32_t> cost_;
    uint64_t spent_ = 0;
};

// Tables of progressive.bin.
struct Probabilities {
    uint16_t significance[2][64][4][10];  // by stage, table index, class of the mean, neighbourhood
    uint16_t sign[12];
    uint16_t upper[4][16][10];
    uint16_t low[3][33];
    uint16_t centre[5][16];
    uint16_t zero[64];

    explicit Probabilities(View content) {
        const Error broken("the model bundle's tables of the embedded stream are damaged");
        if (content.size() != sizeof *this) throw broken;
        Cursor in(content, broken.what());
        std::vector<uint16_t> words;
        while (in.left()) words.push_back(uint16_t(in.number(2)));
        std::memcpy(this, words.data(), sizeof *this);
        if (std::count(words.begin(), words.end() - sizeof(centre) / 2 - sizeof(zero) / 2, 0)) throw broken;
    }
};

// Embedded streams. H is `half_`, the width of new cells in half levels.
class Embedded final : public StripCoder {
 public:
    Embedded(Model& model, const File& file, bool with_symbols)
        : model_(model),
          with_symbols_(with_symbols),
          geometry_{model.levels, file.width, file.height},
          walk_(model, geometry_, "embedded", false),
          stream_(file.stream),
          grey_(file.grey),
          p_(model.file("progressive.bin")),
          low_(geometry_.planes<int32_t>(0)) {
        share_ = {0, 0};
        for (int k = 1; k <= model.levels; ++k) {
            bands_.push_back(geometry_.planes<Latent>(k));
            found_.push_back(geometry_.planes<uint8_t>(k));
            settled_.push_back(found_.back());
            const Size inside = geometry_.inside(k);
            for (int pass = 0; pass < kLevelUnits; ++pass)
                share_.push_back(share_.back() + double(inside.rows) * inside.columns * Unit{0, 0, pass}.planes() / 4);
        }
        for (double& s : share_) s /= share_.back();
    }

    Decoded decode() {
        if (!start_low()) return result();
        DecisionReader reader(stream_);
        reader_ = &reader;
        try {
            for (layer_ = 0; layer_ < kLayers; ++layer_) {
                half_ = kTop >> layer_;
                significance();
                refinement();
            }
        } catch (const Undecodable&) {  // the end; what counted before is the picture
        }
        ended_ = true;
        for (auto& [level, rest] : walk_.rests) {
            half_ = postponed_[level];
            walk_.finish(rest, *this);
        }
        return result();
    }

 private:
    static constexpr int kLayers = 14, kTop = 8192, kLowStep = 128, kGroup = 1024, kLimit = 10;
    static constexpr int kCorner = 3;         // strips of the low-pass's first place
    static constexpr uint8_t kMiddle = 128;   // level of a picture of which nothing is known
    static constexpr double kCoarsest = 256;  // levels: largest step that the decoder is told

    struct Latent {
        int8_t sign = 0;
        uint8_t index = 0;  // ⌊table index / 4⌋ of when it became significant
        bool fresh = false;
        int16_t lower = 0, width = 0;  // half levels
        float guess = 0;               // its value without sign, levels
    };

    struct Candidate {
        uint16_t p;
        int mean;
        uint8_t index;
        bool significant, agrees;
        uint32_t at;  // in the band
    };

    Planes<Latent>& band(int level) { return bands_[geometry_.band(level) - 1]; }
    Planes<uint8_t>& found(int level) { return found_[geometry_.band(level) - 1]; }
    Planes<uint8_t>& settled(int level) { return settled_[geometry_.band(level) - 1]; }

    // Reads the low-pass; whether it is there as a whole. Then `stream_` goes on behind it.
    bool start_low() {
        Cursor in(stream_, {});
        uint64_t size;
        try {
            size = in.varint();
        } catch (const Cursor::Short&) {
            certain_ = 0;
            return false;
        }
        const View head = in.take(std::min<uint64_t>(size, in.left()));
        const int step = 32768 + 7 * 2048;
        Planes<int32_t> q;
        if (head.size() == size) {
            SymbolReader reader(model_.tables, head);
            q = low_pass(model_, geometry_, step, &reader);
        } else {
            PrefixReader reader(model_.tables, head, size - head.size());
            q = low_pass(model_, geometry_, step, &reader);
            certain_ = reader.certain;
        }
        if (certain_ < kCorner) return false;
        low_ = std::move(q);
        low_width_ = kLowStep * 16;
        for (int32_t& v : low_.values) v = std::clamp(v, -(1 << 15), 1 << 15) * low_width_;
        stream_ = stream_.subspan(in.at());
        return head.size() == size;
    }

    // The end of a group. `done` is how much of a part of the layer is; the part's depth is `from` to `from` +
    // `length`.
    void group(double from, double length = 0, double done = 0) {
        reader_->group();
        depth_ = layer_ + from + length * done;
    }

    double done(const Unit& unit, double part) const {
        return share_[unit.number] + part * (share_[unit.number + 1] - share_[unit.number]);
    }

    void significance() {
        active_ = reader_->number(1 + kLevelUnits * model_.levels);
        group(0);
        ever_active_ = std::max(ever_active_, active_);
        if (!active_) return;
        auto seen = low_;
        for (int32_t& q : seen.values) q = floor_divide(int64_t(4) * q, 3 * half_);
        for (auto& band : settled_) std::fill(band.values.begin(), band.values.end(), uint8_t(0));
        for (stage_ = 0; stage_ < 2; ++stage_) {
            walk_.details(seen, *this);
            if (ended_) throw Undecodable();
        }
    }

    static int floor_divide(int64_t a, int64_t b) { return int(a / b - (a % b < 0)); }

    int cell(const Latent& a) const { return a.sign * ((2 * a.lower + a.width) * 16 / (3 * half_)); }

    Planes<int8_t> condition(int level, int top, int bottom) override {
        const int code = 32768 + (13 - layer_) * 2048 - 850;  // of the step 3 H / 4
        return {1, bottom - top, geometry_.grid(level).columns, int8_t(std::clamp(condition_of(code), -80, 48))};
    }

    // The level's latents, and the largest of the finer ones below each.
    Planes<int8_t> known(int level, int top, int bottom) override {
        Planes<int8_t> result(level > 1 ? 72 : 36, bottom - top, band(level).columns / 2, model_.compand(0));
        for (int k = 0; k < 36; ++k) {
            const auto [i, j] = kPhases[k / 9];
            for (int y = 0; y < result.rows; ++y) {
                const int row = 2 * (top + y) + i;
                const Latent* own = band(level).row(k % 9, row) + j;
                const uint8_t* there = found(level).row(k % 9, row) + j;
                int8_t* to = result.row(k, y);
                for (int x = 0; x < result.columns; ++x)
                    if (there[2 * x]) to[x] = model_.compand(cell(own[2 * x]));
                if (level == 1) continue;
                const size_t first = band(level - 1).row(k % 9, 2 * row) - band(level - 1).values.data() + 2 * j;
                const size_t second = first + band(level - 1).columns;
                const Latent *above = &band(level - 1).values[first], *below = &band(level - 1).values[second];
                const uint8_t *a = &found(level - 1).values[first], *b = &found(level - 1).values[second];
                to = result.row(36 + k, y);
                for (int x = 0; x < 4 * result.columns; x += 4) {
                    if (!(a[x] | a[x + 1] | b[x] | b[x + 1])) continue;
                    int largest = 0;
                    for (const Latent* l : {&above[x], &above[x + 1], &below[x], &below[x + 1]})
                        largest = std::max(largest, std::abs(cell(*l)));
                    to[x / 4] = model_.compand(largest);
                }
            }
        }
        return result;
    }

    // Class of every latent of a level by its significant neighbours and those below it.
    Planes<uint8_t> neighbourhood(int level) {
        const auto& own = found(level);
        Planes<uint8_t> result(own.channels, own.rows, own.columns), padded(1, own.rows + 2, own.columns + 2);
        for (int c = 0; c < own.channels; ++c) {
            for (int y = 0; y < own.rows; ++y) std::copy_n(own.row(c, y), own.columns, padded.row(0, y + 1) + 1);
            for (int y = 0; y < own.rows; ++y) {
                const uint8_t *a = padded.row(0, y), *b = padded.row(0, y + 1), *d = padded.row(0, y + 2);
                uint8_t* to = result.row(c, y);
                for (int x = 0; x < own.columns; ++x) {  // classes of 0, 1, 2, 3 to 4, and more neighbours
                    const uint8_t n = a[x] + a[x + 1] + a[x + 2] + b[x] + b[x + 2] + d[x] + d[x + 1] + d[x + 2];
                    to[x] = uint8_t((n > 0) + (n > 1) + (n > 2) + (n > 4));
                }
                if (level == 1) continue;
                const uint8_t *above = found(level - 1).row(c, 2 * y), *below = found(level - 1).row(c, 2 * y + 1);
                for (int x = 0; x < own.columns; ++x)
                    to[x] += 5 * (above[2 * x] | above[2 * x + 1] | below[2 * x] | below[2 * x + 1]);
            }
        }
        return result;
    }

    bool wants(int unit) override { return unit <= active_ && !ended_; }

    void begin(const Unit& unit) override {
        if (unit.pass) return;
        class_ = neighbourhood(unit.level);
        walk_.rests.erase(unit.level);
    }

    // Of the units in which nothing has become significant yet, and of which no finer level sees anything, only the
    // last guesses count.
    bool postpones(const Unit& unit) override {
        if (unit.number <= ever_active_) return false;
        postponed_[unit.level] = half_;
        return true;
    }

    // After the stream's end the walk still finishes its level: what its nets say of latents without sign counts.
    Planes<int32_t> strip(const Unit& unit, int top, const Planes<int32_t>& mean,
                          const Planes<uint8_t>& index) override {
        Planes<int32_t> seen(mean.channels, mean.rows, mean.columns);
        const float scale = float(3 * half_) / (256 * 64);  // powers of two beside it round nothing
        for (int plane = 0; plane < unit.planes(); ++plane) {
            if (plane % unit.channels() == 0 && unit.number <= active_ && !ended_)
                decide(unit, plane, top, mean, index);  // all of this phase
            const auto [i, j] = unit.place(plane);
            for (int y = 0; y < mean.rows; ++y) {
                Latent* latent = band(unit.level).row(unit.channel(plane), 2 * (top + y) + i) + j;
                const int32_t* means = mean.row(plane, y);
                const uint8_t* indices = index.row(plane, y);
                int32_t* to = seen.row(plane, y);
                for (int x = 0; x < mean.columns; ++x) {
                    Latent& a = latent[2 * x];
                    const int middle = std::clamp(means[x], -kLimit, kLimit);
                    if (!a.sign) a.guess = float(middle * p_.zero[indices[x]]) * scale;
                    to[x] = a.sign ? cell(a) : middle;
                }
            }
        }
        return seen;
    }

    // Which latents of a strip become significant, of the phase whose first plane this is.
    void decide(const Unit& unit, int plane, int top, const Planes<int32_t>& mean, const Planes<uint8_t>& index) {
        const Size inside = geometry_.inside(geometry_.band(unit.level));
        auto &found = this->found(unit.level), &settled = this->settled(unit.level);
        auto& latents = band(unit.level).values;
        std::vector<Candidate>& candidates = candidates_;
        candidates.clear();
        for (int p = plane; p < plane + unit.channels(); ++p) {
            const auto [i, j] = unit.place(p);
            const Size part = unit.part(p, inside);
            for (int y = 0; y < std::min(mean.rows, part.rows - top); ++y) {
                const size_t first = found.row(unit.channel(p), 2 * (top + y) + i) + j - found.values.data();
                const uint8_t *there = &found.values[first], *done = &settled.values[first];
                const uint8_t *classes = &class_.values[first], *indices = index.row(p, y);
                const int32_t* means = mean.row(p, y);
                for (int x = 0; x < part.columns; ++x) {
                    const int k = indices[x], mu = means[x], size = std::abs(mu);
                    if (there[2 * x] || (stage_ ? done[2 * x] : k < 14)) continue;
                    const auto& by_mean = p_.significance[stage_][k][(size >= 2) + (size >= 5) + (size >= 9)];
                    candidates.push_back(
                        {by_mean[classes[2 * x]], mu, uint8_t(k / 4), false, false, uint32_t(first + 2 * x)});
                }
            }
        }
        sort(candidates);
        // Rows of the unit's phases one below the other: of all, these come next.
        const int phase_rows = unit.part(0, inside).rows, rows = unit.planes() / unit.channels() * phase_rows;
        const int first = plane / unit.channels() * phase_rows + top;
        const int next = std::clamp(unit.part(plane, inside).rows - top, 0, mean.rows);
        try {
            for (size_t begin = 0; begin < candidates.size(); begin += kGroup) {
                const size_t end = std::min(begin + kGroup, candidates.size());
                const auto these = std::span(candidates).subspan(begin, end - begin);
                for (Candidate& a : these) a.significant = reader_->decide(a.p);
                for (Candidate& a : these)
                    if (a.significant) a.agrees = reader_->decide(p_.sign[std::min(std::abs(a.mean), 11)]);
                const double part = (first + next * double(end) / double(candidates.size())) / rows;
                group(stage_ ? 0.3 : 0, stage_ ? 0.4 : 0.3, done(unit, part));
                for (const Candidate& a : these) {
                    settled.values[a.at] = true;
                    if (!a.significant) continue;
                    Latent& latent = latents[a.at];
                    found.values[a.at] = true;
                    latent.sign = a.agrees == (a.mean >= 0) ? 1 : -1;
                    latent.index = a.index;
                    latent.fresh = true;
                    latent.lower = latent.width = int16_t(half_);
                }
            }
        } catch (const Undecodable&) {
            ended_ = true;
        }
    }

    // By falling probability, equal ones in their order: a radix sort, as there are 16 bits.
    void sort(std::vector<Candidate>& candidates) {
        sorted_.resize(candidates.size());
        for (int shift : {0, 8}) {
            size_t places[256] = {};
            for (const Candidate& a : candidates) ++places[255 - (a.p >> shift & 255)];
            std::exclusive_scan(std::begin(places), std::end(places), std::begin(places), size_t(0));
            for (const Candidate& a : candidates) sorted_[places[255 - (a.p >> shift & 255)]++] = a;
            std::swap(candidates, sorted_);
        }
    }

    void refinement() {
        refine_low();
        for (int level = model_.levels, number = 1; level > 0; --level) {
            class_ = neighbourhood(level);
            for (int pass = 0; pass < kLevelUnits; ++pass, ++number) {
                const Unit unit{number, level, pass};
                for (int plane = 0; plane < unit.planes(); plane += unit.channels()) refine(unit, plane);
            }
        }
        group(1);
    }

    // Halves cells of the phase of a unit whose first plane this is.
    void refine(const Unit& unit, int plane) {
        auto& latents = band(unit.level);
        const auto [i, j] = unit.place(plane);
        std::vector<std::pair<Latent*, uint16_t>> chosen;  // with the probability of the upper half
        for (int c = unit.channel(plane); c < unit.channel(plane) + unit.channels(); ++c)
            for (int y = i; y < latents.rows; y += 2) {
                const uint8_t *there = found(unit.level).row(c, y), *classes = class_.row(c, y);
                for (int x = j; x < latents.columns; x += 2) {
                    if (!there[x]) continue;
                    Latent& a = latents.row(c, y)[x];
                    if (a.width != 2 * half_) continue;
                    const int place = std::min(a.lower / a.width, 4) - 1;
                    chosen.emplace_back(&a, p_.upper[place][a.index][classes[x]]);
                }
            }
        std::vector<bool> upper;
        for (size_t begin = 0; begin < chosen.size(); begin += kGroup) {
            const size_t end = std::min(begin + kGroup, chosen.size());
            upper.clear();
            for (size_t k = begin; k < end; ++k) upper.push_back(reader_->decide(chosen[k].second));
            const double part = plane / unit.channels() + double(end) / double(chosen.size());
            group(0.7, 0.3, done(unit, part * unit.channels() / unit.planes()));
            for (size_t k = begin; k < end; ++k) {
                Latent& a = *chosen[k].first;
                if (upper[k - begin]) a.lower = int16_t(a.lower + half_);
                a.width = int16_t(half_);
                a.fresh = false;
            }
        }
    }

    void refine_low() {
        if (low_width_ <= 8 * half_) return;
        const auto [rows, columns] = geometry_.inside(0);
        for (int c = 0; c < 3; ++c) {
            auto refined = low_;
            for (int y = 0; y < rows; ++y) {
                const int32_t *above = low_.row(c, std::max(y - 1, 0)), *here = low_.row(c, y);
                const int32_t* below = low_.row(c, std::min(y + 1, rows - 1));
                for (int x = 0; x < columns; ++x) {
                    const int sum = above[x] + below[x] + here[std::max(x - 1, 0)] + here[std::min(x + 1, columns - 1)];
                    const int distance = floor_divide(8 * (int64_t((sum + 2) >> 2) - here[x]), low_width_);
                    const bool up = reader_->decide(p_.low[c][std::clamp(distance + 16, 0, 32)]);
                    refined.row(c, y)[x] += up ? low_width_ / 4 : -(low_width_ / 4);
                }
            }
            group(0.7);
            low_ = std::move(refined);
        }
        pad(low_, geometry_.inside(0));
        low_width_ /= 2;
    }

    float value(const Latent& a) const {  // levels
        if (!a.sign) return a.guess;
        const int place = a.fresh ? 4 : std::min(a.lower / a.width, 4) - 1;
        return a.sign * (a.lower + a.width * (p_.centre[place][a.index] / 256.0f)) / 2;
    }

    Decoded result() {
        Latents latents;
        Decoded result;
        if (with_symbols_) result.symbols = low_.values;
        for (int k = 0; k <= model_.levels; ++k) {
            auto& h = latents.emplace_back(geometry_.planes<float>(k));
            const size_t plane = size_t(h.rows) * h.columns;
            for (int c = 0; c < h.channels; ++c) {
                const float gain = float(std::exp(model_.gain[k][c]));
                for (size_t n = c * plane; n < (c + 1) * plane; ++n)
                    h.values[n] = (k ? value(bands_[k - 1].values[n]) : float(low_.values[n]) / 16) * gain / 255;
            }
            if (!k || !with_symbols_) continue;
            for (const Latent& a : bands_[k - 1].values) result.symbols.push_back(a.sign * (2 * a.lower + a.width));
        }
        if (certain_ < kCorner) {
            result.rgb.assign(size_t(3) * geometry_.width * geometry_.height, kMiddle);
            return result;
        }
        result.rgb = synthesise(model_, geometry_, latents, std::min(4096 * std::exp2(1 - depth_), kCoarsest) / 255);
        if (certain_ < 2 * kCorner) {  // a single place is known
            if (grey_) make_grey(result.rgb);
            for (uint16_t& v : result.rgb) v = uint16_t((v + kMiddle) >> 1);
        }
        return result;
    }

    Model& model_;
    const bool with_symbols_;
    const Geometry geometry_;
    Walk walk_;
    View stream_;
    const bool grey_;
    const Probabilities p_;
    DecisionReader* reader_ = nullptr;
    Planes<int32_t> low_;  // 1/16 levels
    int low_width_ = 0;
    std::vector<Planes<Latent>> bands_;            // details L … 1
    std::vector<Planes<uint8_t>> found_, settled_;  // whether a latent has a sign; whether it has been decided
    std::vector<Candidate> candidates_, sorted_;
    std::vector<double> share_;                    // of latents, before each unit
    Planes<uint8_t> class_;              // neighbourhood
    int layer_ = 0, stage_ = 0, half_ = kTop, active_ = 0, ever_active_ = 0;
    std::map<int, int> postponed_;  // H when a level's rest was postponed
    bool ended_ = false;
    double depth_ = 0;
    int certain_ = std::numeric_limits<int>::max();  // strips of a low-pass that is cut off
};

using Lattice = Planes<int32_t>;                  // of one channel
using Offsets = std::vector<std::array<int, 2>>;  // (rows, columns)

int phase_at(int row, int column) { return row & 1 ? (column & 1 ? 1 : 3) : (column & 1 ? 2 : 0); }

// Neighbours of a phase's samples that are known before them, the nearest four first.
Offsets neighbours(int phase) {
    const auto [i, j] = kPhases[phase];
    const int nearest = phase == 1 ? 2 : 1;
    Offsets near, far;
    for (int a = -3; a <= 3; ++a)
        for (int b = -3; b <= 3; ++b) {
            const int distance = std::abs(a) + std::abs(b);
            if (phase_at(i + a, j + b) < phase && distance <= 7 - phase)
                (distance == nearest ? near : far).push_back({a, b});
        }
    near.insert(near.end(), far.begin(), far.end());
    return near;
}

// Lossless files.
class Lossless {
 public:
    Lossless(Model& model, const File& file)
        : model_(model),
          file_(file),
          width_(file.width),
          height_(file.height),
          content_(*file.lossless),
          segments_(file.segments),
          tables_(read_tables(model.file("lossless/tables.bin"), false)),
          streams_(tables_, file.segments, kUnits) {
        if (tables_.size() != kTables) throw Error("the model bundle's tables for lossless files are damaged");
    }

    Decoded decode() {
        const bool packed = content_.size() == 5 && (content_[4] == 2 || content_[4] == 3);
        Decoded result{packed ? unpack() : predicted(), {}};
        Bytes bytes;
        for (const uint16_t sample : result.rgb) {
            bytes.push_back(uint8_t(sample));
            if (file_.deep) bytes.push_back(uint8_t(sample >> 8));
        }
        if (streams_.units == kUnits && crc32_z(0, bytes.data(), bytes.size()) != Cursor(content_, {}).number(4))
            damaged("its pixels are not those that were compressed");
        result.symbols.assign(result.rgb.begin(), result.rgb.end());
        return result;
    }

 private:
    static constexpr int kUnits = 37, kFirstTuned = 19, kTables = 160, kWebp = 3;
    static constexpr int kWindow = 8, kUnweighted = 136, kLightest = -64, kHeaviest = 24;
    static constexpr int kLargest = 510;  // difference that the nets know
    static constexpr int kFarther = 4;    // rows above and below that nets see which look around
    static constexpr int kMostFeatures = 255;

    struct Axis {
        Lattice full, full_residuals;              // of stride 2h, in the end of h
        std::array<Lattice, 4> values, residuals;  // phases
    };

    Samples unpack() const {
        const std::string complaint = "its packed samples cannot be read";
        Samples rgb(size_t(3) * width_ * height_);
        if (segments_.empty()) return rgb;
        const View payload = segments_[0].payload;
        if (segments_.size() != 1 || streams_.units != kUnits || payload.empty() || payload[0] > kWebp)
            damaged(complaint);
        if (payload[0] == kWebp && file_.deep) damaged(complaint);
        const size_t channels = content_[4] == 3 ? 3 : 1, row = channels * width_, count = row * height_;
        if (payload[0] == kWebp) {
            const Bytes colours = unwebp(file_, payload.subspan(1), "what the file holds");
            for (size_t k = 0; k < rgb.size(); ++k) rgb[k] = colours[channels == 3 ? k : k / 3 * 3 + 1];
            return rgb;
        }
        const Bytes bytes = unzstd(payload.subspan(1), count * (file_.deep ? 2 : 1), complaint);
        Samples samples(bytes.begin(), bytes.begin() + ptrdiff_t(count));  // of 16 bits the upper bytes come first
        for (size_t k = 0; file_.deep && k < count; ++k) samples[k] = uint16_t(samples[k] << 8 | bytes[count + k]);
        const auto add = [&](size_t k, size_t before) { samples[k] = uint16_t((samples[k] + samples[before]) & top_); };
        for (size_t k = 0; payload[0] == 2 && k < count; ++k)
            if (k % row >= channels) add(k, k - channels);
        for (size_t k = row; payload[0] && k < count; ++k) add(k, k - row);
        for (size_t k = 0; k < rgb.size(); ++k) rgb[k] = samples[channels == 3 ? k : k / 3];
        return rgb;
    }

    [[noreturn]] static void unreadable() { damaged("its lossless parameters cannot be read"); }

    void read_parameters() {
        Cursor in(content_, "the file is damaged: its lossless parameters cannot be read");
        in.take(4);
        const auto flags = in.number(1);
        axes_.resize(flags & 1 ? 3 : 1);
        if (file_.deep) {
            if (flags > 7 || flags & 2) unreadable();
            if (flags & 4) read_levels(in.take(in.number(2)));
            scale_ = int(in.number(1));
            if (scale_ > 8) unreadable();
            read_tunings(in);
            if (const size_t rest = in.left()) {
                const std::string complaint = "its lossless parameters cannot be read";
                const Bytes bytes = unzstd(in.take(rest), corrections_.size(), complaint);
                std::copy(bytes.begin(), bytes.end(), corrections_.begin());
            }
        } else {
            const auto corrections = in.number(5);
            if (flags & ~5u || corrections >> 36) unreadable();
            for (int k = 0; k < 9; ++k)
                std::fill_n(corrections_.begin() + 64 * k, 64, int8_t(int((corrections >> 4 * k & 15) ^ 8) - 8));
            read_tunings(in);
            if (flags & 4) read_weights(in);
        }
        if (in.left()) unreadable();
    }

    // Weights of values in 1/8 octaves, from the lowest value on: of Y, Co, Cg, R, G, B.
    void read_weights(Cursor& in) {
        const auto mask = in.number(1);
        if (!mask || mask >> (axes_.size() > 1 ? 6 : 1)) unreadable();
        const auto count = [](int k) { return k == 1 || k == 2 ? 511 : 256; };
        size_t size = 0;
        for (int k = 0; k < 6; ++k) size += mask >> k & 1 ? count(k) : 0;
        const Bytes bytes = unzstd(in.take(in.left()), size, "its lossless parameters cannot be read");
        auto next = bytes.begin();
        for (int k = 0; k < 6; ++k)
            for (int n = 0; mask >> k & 1 && n < count(k); ++n) weights_[k].push_back(int8_t(*next++));
        for (const auto& weights : weights_)
            for (const int8_t weight : weights)
                if (weight < kLightest || weight > kHeaviest) unreadable();
        for (const Table& table : tables_) {
            std::vector<uint64_t> f(2 * kWindow + 3), g(std::max(2, table.radius - kWindow));
            for (int s = 0; s <= 2 * table.radius; ++s) {
                const int m = s - table.radius, beyond = std::abs(m) - kWindow - 1;
                const uint64_t own = table.cumulative[s + 1] - table.cumulative[s];
                f[std::clamp(m + kWindow + 1, 0, 2 * kWindow + 2)] += own;
                if (beyond >= 0) g[beyond] += own;
            }
            for (uint64_t& own : f) own >>= 6;
            windows_.push_back(f);
            tails_.push_back({0, shared_out(g, 0)});
        }
    }

    // Bounds of symbols: each has a frequency of 1 and its share of what is left of 2^24; one has the rest.
    static std::vector<uint32_t> shared_out(const std::vector<uint64_t>& shares, size_t rest) {
        const uint64_t sum = std::max<uint64_t>(1, std::accumulate(shares.begin(), shares.end(), uint64_t(0)));
        const uint64_t free = (1 << 24) - shares.size();
        std::vector<uint64_t> f;
        for (const uint64_t share : shares) f.push_back(1 + share * free / sum);
        f[rest] += (1 << 24) - std::accumulate(f.begin(), f.end(), uint64_t(0));
        std::vector<uint32_t> bounds{0};
        for (const uint64_t own : f) bounds.push_back(uint32_t(bounds.back() + own));
        return bounds;
    }

    bool weighed(int axis) const {
        const auto there = [&](int k) { return !weights_[k].empty(); };
        return axis < 2 ? there(axis) : there(2) || there(3) || there(4) || there(5);
    }

    // The weight of a value of an axis, where the axes before have the values `before`, in 1/256.
    uint64_t weight(int axis, int value, const std::array<int, 2>& before) const {
        int total = 0;
        const auto add = [&](int k, int v) {
            if (weights_[k].empty()) return;
            const int lowest = k == 1 || k == 2 ? -255 : 0;
            total += v < lowest || v > 255 ? kLightest : weights_[k][v - lowest];
        };
        add(axis, value);
        if (axis == 2) {
            const int t = before[0] - (value >> 1), b = t - (before[1] >> 1);
            add(3, b + before[1]);
            add(4, value + t);
            add(5, b);
        }
        static const std::vector<uint64_t> factors = [] {
            std::vector<uint64_t> all;
            for (int k = kLightest; k <= kHeaviest; ++k) all.push_back(uint64_t(std::floor(256 * std::exp2(k / 8.0) + 0.5)));
            return all;
        }();
        return factors[std::clamp(total, kLightest, kHeaviest) - kLightest];
    }

    // Residuals of which those with the first tables are weighted; `means` as under "Prediction".
    std::vector<int32_t> take_weighted(SymbolReader& reader, int axis, int phase, int top, const std::vector<int>& means,
                                       const std::vector<uint8_t>& tables) {
        std::vector<int32_t> m(tables.size());
        std::vector<uint32_t> outside, others;
        const int columns = axes_[axis].values[phase].columns;
        for (size_t n = 0; n < tables.size(); ++n) {
            if (tables[n] >= kUnweighted) {
                others.push_back(uint32_t(n));
                continue;
            }
            const int predicted = (means[n] + 8) >> 4;
            const bool turned = means[n] < 16 * predicted;
            std::array<int, 2> before{};
            for (int k = 0; k < axis; ++k)
                before[k] = axes_[k].values[phase].row(0, top + int(n / columns))[n % columns];
            std::vector<uint64_t> f = windows_[tables[n]];
            if (turned) std::reverse(f.begin(), f.end());
            for (int s = 0; s < int(f.size()); ++s) {
                const bool in = s > 0 && s < 2 * kWindow + 2;
                f[s] *= in ? weight(axis, predicted + s - kWindow - 1, before) : 256;
            }
            m[n] = reader.one(shared_out(f, kWindow + 1)) - kWindow - 1;
            if (std::abs(m[n]) > kWindow) outside.push_back(uint32_t(n));
        }
        reader.tails(tails_, outside, tables, m);
        for (size_t n = 0; n < m.size(); ++n)
            if (means[n] < 16 * ((means[n] + 8) >> 4)) m[n] = -m[n];
        std::vector<uint8_t> rest;
        for (const uint32_t n : others) rest.push_back(tables[n]);
        const auto plain = reader.take(rest);
        for (size_t k = 0; k < others.size(); ++k) m[others[k]] = plain[k];
        return m;
    }

    void read_tunings(Cursor& in) {
        const auto tuned = in.number(3);
        if (tuned >> (kUnits - kFirstTuned)) unreadable();
        for (int unit = kFirstTuned; unit < kUnits; ++unit) {
            if (!(tuned >> (unit - kFirstTuned) & 1)) continue;
            const int axis = (unit - 1) % 9 / 3, phase = (unit - 1) % 3 + 1;
            for (const uint8_t byte : in.take(neighbours(phase).size() + 4 + 10 * axis))
                tunings_[unit].push_back(int8_t(byte));
        }
    }

    // The levels that there are: samples are coded as ranks among them.
    void read_levels(View frame) {
        const Bytes bits = unzstd(frame, 8192, "its lossless parameters cannot be read");
        for (int level = 0; level <= 65535; ++level)
            if (bits[level >> 3] >> (7 - (level & 7)) & 1) levels_.push_back(uint16_t(level));
        if (levels_.empty()) unreadable();
    }

    int lowest(int axis) const { return axis ? -top_ : 0; }

    Samples predicted() {
        read_parameters();
        for (int axis = 0; axis < int(axes_.size()); ++axis) {
            SymbolReader* reader = streams_.of(0);
            const int value = (axis ? 0 : (top_ + 1) / 2) + (reader ? reader->take({kTables - 1})[0] : 0);
            axes_[axis].full = Lattice(1, 1, 1, std::clamp(value, lowest(axis), top_));
            axes_[axis].full_residuals = Lattice(1, 1, 1);
        }
        for (int h = power_from(std::max(width_, height_)) / 2; h >= 1; h /= 2)
            for (size_t axis = 0; axis < axes_.size(); ++axis) refine(h, int(axis));
        Samples rgb(size_t(3) * width_ * height_);
        const auto sample = [&](int value) {
            const int rank = std::clamp(value, 0, top_);
            return levels_.empty() ? uint16_t(rank) : levels_[std::min(size_t(rank), levels_.size() - 1)];
        };
        for (int y = 0; y < height_; ++y) {
            uint16_t* pixel = rgb.data() + size_t(3) * width_ * y;
            for (int x = 0; x < width_; ++x, pixel += 3) {
                const auto at = [&](size_t axis) { return axis < axes_.size() ? axes_[axis].full.row(0, y)[x] : 0; };
                const int co = at(1), cg = at(2), t = at(0) - (cg >> 1), b = t - (co >> 1);
                pixel[0] = sample(b + co);
                pixel[1] = sample(cg + t);
                pixel[2] = sample(b);
            }
        }
        return rgb;
    }

    // Takes an axis from the lattice of stride 2h to that of stride h.
    void refine(int h, int axis) {
        Axis& a = axes_[axis];
        a.values[0] = std::move(a.full);
        a.residuals[0] = std::move(a.full_residuals);
        const int rows = ceil_divide(height_, h), columns = ceil_divide(width_, h);
        look_around(h, axis);
        for (int phase = 1; phase < 4; ++phase) {
            const auto [i, j] = kPhases[phase];
            const Size size{(rows - i + 1) / 2, (columns - j + 1) / 2};
            a.values[phase] = a.residuals[phase] = Lattice(1, size.rows, size.columns);
            const int most = std::max(1, 65536 / std::max(1, size.columns));
            for (int top = 0; top < size.rows && size.columns; top += most)
                strip(h, axis, phase, top, std::min(most, size.rows - top));
        }
        a.full = joined(a.values, rows, columns);
        a.full_residuals = joined(a.residuals, rows, columns);
    }

    // Lets the net that looks around, if the bundle has one, make features of phase 0.
    void look_around(int h, int axis) {
        features_ = Planes<uint8_t>(0, 0, 0);
        const std::string graph = graph_of(h, axis) + "features";
        if (!model_.has(graph + ".onnx")) return;
        const int rows = axes_[axis].values[0].rows, columns = axes_[axis].values[0].columns;
        const int most = std::max(1, 65536 / columns);
        for (int top = 0; top < rows; top += most) {
            const int count = std::min(most, rows - top), first = std::max(0, top - kFarther);
            const int seen = std::min(rows, top + count + kFarther) - first;
            Inputs in;
            const Planes<int16_t> context = noticed(around(axis, first, seen));
            in.add("context", context);
            const auto out = model_.run(graph, in, {"features"});
            const auto shape = out[0].GetTensorTypeAndShapeInfo().GetShape();
            const int64_t channels = shape.size() == 4 ? shape[1] : 0;
            if (channels < 1 || channels > kMostFeatures || (top && channels != features_.channels)) unfit();
            const auto part = output<uint8_t>(out[0], {1, channels, seen, columns});
            if (!top) features_ = Planes<uint8_t>(int(channels), rows, columns);
            for (int k = 0; k < features_.channels; ++k)
                std::copy_n(part.begin() + (size_t(k) * seen + top - first) * columns, size_t(count) * columns,
                            features_.row(k, top));
        }
    }

    static std::string graph_of(int h, int axis) {
        return "lossless/" + std::to_string(std::min(log2_of(h), 2) + 1) + "_" + std::to_string(axis) + "_";
    }

    // What is known around rows of phase 0 before phase 1.
    Planes<int32_t> around(int axis, int top, int rows) const {
        const int columns = axes_[axis].values[0].columns;
        Planes<int32_t> known(9 + 6 * axis, rows, columns);
        const auto each = [&](int plane, const auto& value, int height, int width) {
            for (int y = 0; y < rows && top + y < height; ++y)
                for (int x = 0; x < width; ++x) known.row(plane, y)[x] = value(top + y, x);
        };
        for (int k = 0; k < int(axes_.size()); ++k) {
            const Lattice& values = k <= axis ? axes_[k].values[0] : axes_[k].full;
            const Lattice& residuals = k <= axis ? axes_[k].residuals[0] : axes_[k].full_residuals;
            const int height = values.rows;
            each(3 * k, [&](int y, int x) { return values.row(0, y)[x + 1] - values.row(0, y)[x]; }, height,
                 columns - 1);
            each(3 * k + 1, [&](int y, int x) { return values.row(0, y + 1)[x] - values.row(0, y)[x]; }, height - 1,
                 columns);
            each(3 * k + 2, [&](int y, int x) { return residuals.row(0, y)[x]; }, height, columns);
        }
        for (int k = 0; k < axis; ++k)
            for (int phase = 1; phase < 4; ++phase) {
                const Lattice& zero = axes_[k].values[0];
                const Lattice& values = axes_[k].values[phase];
                const Lattice& residuals = axes_[k].residuals[phase];
                const int plane = 7 + 6 * k + 2 * phase;
                each(plane, [&](int y, int x) { return values.row(0, y)[x] - zero.row(0, y)[x]; }, values.rows,
                     values.columns);
                each(plane + 1, [&](int y, int x) { return residuals.row(0, y)[x]; }, values.rows, values.columns);
            }
        return known;
    }

    // Differences as nets see them: 2^s levels count as one.
    Planes<int16_t> noticed(const Planes<int32_t>& known) const {
        Planes<int16_t> seen(known.channels, known.rows, known.columns);
        std::transform(known.values.begin(), known.values.end(), seen.values.begin(), [&](int32_t d) {
            return int16_t(std::clamp((d + (1 << scale_ >> 1)) >> scale_, -kLargest, kLargest));
        });
        return seen;
    }

    static Lattice joined(const std::array<Lattice, 4>& phases, int rows, int columns) {
        Lattice result(1, rows, columns);
        for (int y = 0; y < rows; ++y)
            for (int x = 0; x < columns; ++x) result.row(0, y)[x] = phases[phase_at(y, x)].row(0, y / 2)[x / 2];
        return result;
    }

    // What is known around the samples of a strip (channels, rows, columns), and their reference values.
    std::pair<Planes<int16_t>, std::vector<int32_t>> context(int axis, int phase, int top, int rows) const {
        const auto [i, j] = kPhases[phase];
        const Offsets offsets = neighbours(phase);
        const Axis& own = axes_[axis];
        const int columns = own.values[phase].columns;
        Planes<int32_t> known(int(offsets.size()) + 4 + 10 * axis, rows, columns);
        int plane = 0;
        // Fills the next plane with every `stride`-th sample of a lattice, which goes on with its edge.
        const auto add = [&](const Lattice& from, int stride, int down, int right) {
            for (int y = 0; y < rows && !from.values.empty(); ++y) {
                const int32_t* row = from.row(0, std::clamp(stride * (top + y) + down, 0, from.rows - 1));
                for (int x = 0; x < columns; ++x)
                    known.row(plane, y)[x] = row[std::clamp(stride * x + right, 0, from.columns - 1)];
            }
            ++plane;
        };
        // Makes planes differences to the rounded mean of four of them, which it returns.
        const auto subtract_mean = [&](const std::vector<int>& planes, const std::vector<int>& four) {
            std::vector<int32_t> mean(size_t(rows) * columns);
            for (size_t n = 0; n < mean.size(); ++n) {
                int sum = 2;
                for (const int k : four) sum += known.row(k, 0)[n];
                mean[n] = sum >> 2;
            }
            for (const int k : planes)
                for (size_t n = 0; n < mean.size(); ++n) known.row(k, 0)[n] -= mean[n];
            return mean;
        };
        const auto source = [&, i = i, j = j](const std::array<Lattice, 4>& phases, int k) {
            return &phases[phase_at(i + offsets[k][0], j + offsets[k][1])];
        };
        std::vector<int> there, nearest;  // planes of phases that have samples
        for (int k = 0; k < int(offsets.size()); ++k) {
            add(*source(own.values, k), 1, (i + offsets[k][0]) >> 1, (j + offsets[k][1]) >> 1);
            if (source(own.values, k)->values.empty()) continue;
            there.push_back(k);
            if (k < 4) nearest.push_back(k);
        }
        if (nearest.size() == 2) nearest = {nearest[0], nearest[1], nearest[0], nearest[1]};
        const auto reference = subtract_mean(there, nearest);
        for (int k = 0; k < 4; ++k)
            add(*source(own.residuals, k), 1, (i + offsets[k][0]) >> 1, (j + offsets[k][1]) >> 1);
        for (int before = 0; before < axis; ++before) {
            std::vector<int> nine{plane}, four;
            add(axes_[before].full, 2, i, j);
            for (int a = -1; a <= 1; ++a)
                for (int b = -1; b <= 1; ++b) {
                    if (!a && !b) continue;
                    if ((std::abs(a) + std::abs(b) == 2) == (phase == 1)) four.push_back(plane);
                    nine.push_back(plane);
                    add(axes_[before].full, 2, i + a, j + b);
                }
            subtract_mean(nine, four);
            add(axes_[before].residuals[phase], 1, 0, 0);
        }
        return {noticed(known), reference};
    }

    void strip(int h, int axis, int phase, int top, int rows) {
        const int log = log2_of(h), set = std::min(log, 2);
        const int unit = h >= 16 ? 0 : 1 + 9 * (3 - log) + 3 * axis + phase - 1;
        const int columns = axes_[axis].values[phase].columns;
        const auto [known, reference] = context(axis, phase, top, rows);
        std::vector<int> tuning(reference.size());  // in 1/256 of the mean's unit
        const auto tuned = tunings_.find(unit);
        if (tuned != tunings_.end())
            for (int k = 0; k < known.channels; ++k)
                for (size_t n = 0; n < tuning.size(); ++n) tuning[n] += tuned->second[k] * known.row(k, 0)[n];
        Inputs in;
        in.add("context", known);
        Planes<uint8_t> features(features_.channels, rows, columns);
        for (int k = 0; k < features.channels; ++k)
            for (int y = 0; y < rows; ++y) std::copy_n(features_.row(k, top + y), columns, features.row(k, y));
        in.add("features", features);
        const auto out = model_.run(graph_of(h, axis) + std::to_string(phase), in, {"mean", "index"});
        const auto mean = output<int16_t>(out[0], {1, 1, rows, columns});
        const auto index = output<uint8_t>(out[1], {1, 1, rows, columns});
        std::vector<int> means(reference.size());
        std::vector<uint8_t> tables(reference.size()), rest(reference.size());
        const int lowest = this->lowest(axis);
        const auto inside = [&](int m) { return std::clamp(m, 16 * lowest, 16 * top_); };
        const auto centre = [&](size_t n) { return inside(16 * reference[n] + mean[n] * (1 << scale_)); };
        for (size_t n = 0; n < tables.size(); ++n) {
            means[n] = inside(centre(n) + ((tuning[n] + 8) >> 4) * (1 << scale_));
            const int fraction = means[n] - 16 * ((means[n] + 8) >> 4), c = std::min((std::abs(fraction) + 1) >> 1, 3);
            if (index[n] > 63) unfit();
            const int wanted = index[n] + 5 * scale_ + corrections_[64 * (3 * set + axis) + index[n]];
            const Scale scale(file_.deep ? wanted : std::min(wanted, 63));
            tables[n] = uint8_t(scale.table < 32 ? 4 * scale.table + c : 96 + scale.table);
            rest[n] = scale.rest;
        }
        SymbolReader* reader = streams_.of(unit);
        const bool weighted = unit >= kFirstTuned && weighed(axis);
        const auto m = !reader    ? std::vector<int32_t>(tables.size())
                       : weighted ? take_weighted(*reader, axis, phase, top, means, tables)
                                  : reader->take(tables, rest);
        for (size_t n = 0; n < m.size(); ++n) {
            const int predicted = (means[n] + 8) >> 4, untuned = (centre(n) + 8) >> 4;
            const int64_t there = means[n] < 16 * predicted ? int64_t(predicted) - m[n] : int64_t(predicted) + m[n];
            const int value = int(std::clamp<int64_t>(there, lowest, top_));
            const int y = top + int(n / columns), x = int(n % columns);
            axes_[axis].values[phase].row(0, y)[x] = value;
            axes_[axis].residuals[phase].row(0, y)[x] = value - untuned;
        }
    }

    Model& model_;
    const File& file_;
    const int width_, height_;
    const View content_;
    const std::vector<Segment>& segments_;
    const std::vector<Table> tables_;
    Streams streams_;
    const int top_ = file_.deep ? 65535 : 255;  // highest sample
    int scale_ = 0;                             // s: 2^s levels count as one to the nets
    std::vector<uint16_t> levels_;              // that ranks stand for; none: all
    std::array<int8_t, 9 * 64> corrections_{};  // of indices, by group
    std::map<int, std::vector<int8_t>> tunings_;
    std::array<std::vector<int8_t>, 6> weights_;  // of values of Y, Co, Cg, R, G, B; none if empty
    std::vector<std::vector<uint64_t>> windows_;  // frequencies in 2^18 parts below, in and above the window, by table
    std::vector<Table> tails_;                    // of how far beyond it a residual lies
    std::vector<Axis> axes_;
    Planes<uint8_t> features_{0, 0, 0};  // of phase 0 of the axis in progress
};

// Latents of a flat model: block by block, each seen by the nets of those after it.
class Flat {
 public:
    // Without a stream all residuals are zero.
    Flat(Model& model, int step, std::optional<View> stream) : model_(model), step_(step) {
        if (stream) reader_.emplace(model.tables, *stream, std::endian::big);
    }

    Decoded decode() {
        if (step_ < model_.from_step)
            throw Error("the file says more than this small bundle can decode; it takes the whole model");
        const int dims = 3 * model_.size * model_.size;
        Decoded result{{}, std::vector<int32_t>(dims)};
        std::vector<float> latents(dims);
        const auto own = [&](int k) { return (model_.scale[k] - 5 * (step_ - 32768) + 1024) >> 11; };
        // Residuals of latents `places` around their means.
        const auto part = [&](const std::vector<int>& places, const std::vector<int>& mean,
                              const std::vector<uint8_t>& index) {
            const auto m = reader_ ? reader_->take(index) : std::vector<int32_t>(index.size());
            for (size_t n = 0; n < m.size(); ++n) {
                const int k = places[n];
                latents[k] =
                    model_.dequantised(m[n], mean[n], index[n]) * float(delta_of(step_) * std::exp(model_.gain[0][k]));
                result.symbols[k] = 16 * m[n] + mean[n];
            }
        };
        const int highest = int(model_.tables.size()) - 1, core = model_.blocks.back();
        std::vector<int8_t> seen{int8_t(std::clamp((step_ - 32768 - 5 * 2048 + 64) >> 7, -80, 96))};
        std::vector<int> places, mean;
        std::vector<uint8_t> index;
        for (size_t block = 0; block < model_.blocks.size(); ++block) {
            const int start = int(seen.size()) - 1, count = model_.blocks[block] - start;
            Inputs in;
            in.add("seen", seen, {1, int64_t(seen.size()), 1, 1});
            const auto out = model_.run("entropy/block" + std::to_string(block), in, {"mean", "index"});
            const auto means = output<int16_t>(out[0], {1, count, 1, 1});
            const auto offsets = output<int8_t>(out[1], {1, count, 1, 1});
            places.clear();
            index.clear();
            mean.assign(means.begin(), means.end());
            for (int n = 0; n < count; ++n) {
                places.push_back(start + n);
                index.push_back(uint8_t(std::clamp(own(start + n) + offsets[n], 0, highest)));
            }
            part(places, mean, index);
            for (const int k : places) seen.push_back(model_.compand(result.symbols[k]));
        }
        if (step_ <= model_.rest_step) {
            places.clear();
            index.clear();
            for (int k = core; k < dims; ++k) {
                if (own(k) < 6) continue;
                places.push_back(k);
                index.push_back(uint8_t(std::min(own(k), highest)));
            }
            part(places, std::vector<int>(places.size()), index);
        }
        result.rgb = synthesise(latents);
        return result;
    }

 private:
    Samples synthesise(const std::vector<float>& latents) {
        const std::vector<float> step{float(step_ <= model_.rest_step ? 1e-4 : std::max(delta_of(step_), 20.0 / 255))};
        const int64_t dims = int64_t(latents.size()), size = model_.size;
        unpack_basis(int(dims));
        Inputs in;
        in.add("latents", latents, {1, dims}).add("step", step, {1});
        in.add("reflections", reflections_, {blocks_, kBlock, dims})
            .add("middles", middles_, {blocks_, kBlock, kBlock});
        in.add("signs", signs_, {dims});
        const auto out = model_.run("decoder", in, {"picture"});
        const auto picture = output<float>(out[0], {1, 3, size, size});
        Samples rgb(dims);
        for (size_t k = 0; k < rgb.size(); ++k) rgb[k] = to_level(picture[k % 3 * size * size + k / 3]);
        return rgb;
    }

    // V, T and the signs of the rotation, from basis.bin.
    void unpack_basis(int dims) {
        const Error broken("the model bundle's rotation is damaged");
        Cursor in(model_.file("basis.bin"), broken.what());
        const auto dims_there = in.number(4), rank = in.number(4), fine = std::min<uint64_t>(rank, 64);
        if (dims_there != uint64_t(dims) || rank < 1 || rank > dims_there ||
            in.left() != 8 * rank + dims * (1 + rank + fine))
            throw broken;
        std::vector<float> scales_and_large;
        for (uint64_t k = 0; k < 2 * rank; ++k)
            scales_and_large.push_back(std::bit_cast<float>(uint32_t(in.number(4))));
        for (const uint8_t sign : in.take(dims)) signs_.push_back(int8_t(sign));
        blocks_ = int(rank + kBlock - 1) / kBlock;
        reflections_.resize(size_t(blocks_) * kBlock * dims);
        for (uint64_t k = 0; k < rank; ++k) {
            float* row = reflections_.data() + k * dims;
            const int bytes = k < fine ? 2 : 1;
            for (int d = 0; d < dims; ++d) {
                const auto entry = in.number(bytes);
                row[d] = scales_and_large[k] * float(bytes == 2 ? int16_t(entry) : int8_t(entry));
            }
            row[k] = scales_and_large[rank + k];
        }
        middles_.resize(size_t(blocks_) * kBlock * kBlock);
        for (int b = 0; b < blocks_; ++b) {
            const auto inverse = middle(reflections_.data() + size_t(b) * kBlock * dims, dims);
            for (size_t k = 0; k < inverse.size(); ++k) {
                if (!std::isfinite(inverse[k])) throw broken;
                middles_[size_t(b) * kBlock * kBlock + k] = float(inverse[k]);
            }
        }
    }

    // T_b: the inverse of the upper triangle of V Vᵀ with half its diagonal.
    static std::vector<double> middle(const float* rows, int dims) {
        std::vector<double> gram(kBlock * kBlock), inverse(kBlock * kBlock);
        std::array<float, kBlock> column;
        for (int d = 0; d < dims; ++d) {  // sums over many columns at once, which compilers turn into vectors
            for (int r = 0; r < kBlock; ++r) column[r] = rows[size_t(r) * dims + d];
            for (int r = 0; r < kBlock; ++r)
                for (int s = r; s < kBlock; ++s) gram[r * kBlock + s] += double(column[r]) * column[s];
        }
        for (int r = 0; r < kBlock; ++r) {
            double& diagonal = gram[r * kBlock + r];
            diagonal = diagonal > 0 ? diagonal / 2 : 1;
        }
        for (int s = 0; s < kBlock; ++s) {  // column by column, from the diagonal up
            inverse[s * kBlock + s] = 1 / gram[s * kBlock + s];
            for (int r = s - 1; r >= 0; --r) {
                double sum = 0;
                for (int k = r + 1; k <= s; ++k) sum += gram[r * kBlock + k] * inverse[k * kBlock + s];
                inverse[r * kBlock + s] = -sum / gram[r * kBlock + r];
            }
        }
        return inverse;
    }

    static constexpr int kBlock = 128;

    Model& model_;
    const int step_;
    std::optional<SymbolReader> reader_;
    int blocks_ = 0;
    std::vector<float> reflections_, middles_, signs_;
};

constexpr uint64_t kMaxPixels = 1 << 28;  // of the format
constexpr uint8_t kTinyTag = 0xF8;
constexpr int kTinyNumbers = 3, kMaxTiny = 1 << 15;

bool is_tiny(View data) {
    return data.size() >= 2 && data.size() <= kMaxTiny && data[0] >= kTinyTag && data[0] < kTinyTag + 2 * kTinyNumbers;
}

// The tiny file in base64 text (standard or URL-safe, padded or not); anything else comes back as it is.
Bytes from_text(Bytes data) {
    constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (data.empty() || data.size() > 2 * kMaxTiny || !std::set<char>{'+', '/', '-', '_'}.contains(char(data[0])))
        return data;
    std::string text(data.begin(), data.end());
    text.erase(text.find_last_not_of(" \t\n\v\f\r") + 1);
    text.erase(text.find_last_not_of('=') + 1);
    Bytes content;
    uint32_t bits = 0;
    for (size_t k = 0; k < text.size(); ++k) {
        const size_t digit = kDigits.find(text[k] == '-' ? '+' : text[k] == '_' ? '/' : text[k]);
        if (digit == std::string_view::npos) return data;
        bits = bits << 6 | uint32_t(digit);
        if (k % 4) content.push_back(uint8_t(bits >> (6 - 2 * (k % 4))));
    }
    return is_tiny(content) && text.size() % 4 != 1 ? content : data;
}

// Takes a file or a prefix of one apart; `data` must outlive the result.
File parse(View data) {
    constexpr uint64_t kMaxSide = 1 << 20, kMaxLong = 1 << 30, kMaxElement = 4096;
    constexpr size_t kPiece = 2048, kPageKind = 1, kOneAxisKind = 2, kSpanKind = 3, kDeepAxisKind = 4;
    enum { kGrey = 1, kSides = 2, kEmbedded = 4, kLossless = 8, kTuned = 16, kDeep = 32, kLuma = 64, kWebp = 128 };
    enum { kEnd = 0, kAlpha = 1, kMap = 2, kShifts = 3 };
    const char* const names[] = {"", "transparency", "map of steps", "shifts of tables"};
    if (data.size() < 3 || data[0] != 'E' || data[1] != 'O' || data[2] != 'C') throw Error("not an .eoc file");
    File file;
    Cursor in(data, "the file is cut off before its first segment");
    View head;
    uint8_t ordinal = 0;
    // Whether an element, which ends here, has this checksum.
    const auto intact = [&](View element, uint64_t checksum) {
        auto crc = crc32(0, head.data(), uInt(head.size()));
        crc = crc32(crc, &ordinal, 1);
        ++ordinal;
        return crc32_z(crc, element.data(), element.size()) == checksum;
    };
    in.take(3);
    const auto version = in.number(1);
    if (version != 1 && version != 2)
        throw Error("the file has format version " + std::to_string(version) + "; this program reads versions 1 and 2");
    const View model = in.take(4);
    std::copy(model.begin(), model.end(), file.model.begin());
    const auto flags = in.number(1);
    const auto kind = version == 2 ? in.number(1) : 0;
    file.page = kind == kPageKind;
    file.axes = kind == kOneAxisKind || kind == kDeepAxisKind ? 1 : 3;
    const bool spanned = kind == kSpanKind || kind == kDeepAxisKind;
    const auto known = kGrey | kSides | kWebp | (kind == kOneAxisKind ? kTuned : 0) | (spanned ? kDeep : 0) |
                       (kind == kSpanKind ? kLuma : 0);
    if (version == 2 && (flags & ~uint64_t(known) || !(file.page || file.axes == 1 || spanned)))
        throw Error("the file uses features that this program does not know");
    const auto width = in.varint(), height = in.varint();
    if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide || width * height > kMaxPixels)
        throw Error("the file claims " + std::to_string(width) + "x" + std::to_string(height) +
                    " pixels, beyond the format's limits");
    file.width = int(width);
    file.height = int(height);
    const auto rate = in.number(2);
    file.step = int(in.number(2));
    file.grey = flags & kGrey;
    file.webp = flags & kWebp;
    file.embedded = flags & kEmbedded;
    if (file.axes == 1 && !file.grey) damaged("it has one colour axis, but colours");
    if (file.embedded && (rate || file.step)) damaged("an embedded stream has no rate");
    const bool stepped = !(flags & (kEmbedded | kLossless));
    file.deep = flags & kDeep;
    if (file.deep && flags & (kEmbedded | kTuned)) damaged("it has 16 bits a sample, but a form that has none");
    file.luma = flags & kLuma || file.axes == 1;
    if (file.luma && !(file.grey && stepped)) damaged("it has luma alone, but colours or another form");
    if (flags & kTuned) file.tuning = int(in.number(1));
    if (flags & kTuned && (file.tuning < 1 || file.tuning > 32 || !stepped)) damaged("its tuning is out of range");
    if (file.deep) file.span.high = 65535;
    if (spanned) {
        file.span.low = int(in.number(2));
        file.span.high = int(in.number(2));
        if (!file.deep || file.span.low >= file.span.high) damaged("its range of values cannot be read");
    }
    head = in.since(0);
    while (flags & kSides) {
        const size_t start = in.at();
        const auto kind = in.number(1);
        if (kind == kEnd) break;
        if (kind > kShifts) damaged("it has an unknown element");
        auto& side = kind == kAlpha ? file.alpha : kind == kMap ? file.offsets : file.shifts;
        if (side || (kind != kAlpha && (!stepped || file.deep || file.page)))
            damaged("it has an element that is repeated or not of its form");
        const auto length = in.varint();
        if (length > kMaxLong) damaged("an element is too long");
        side = in.take(length);
        const View element = in.since(start);
        if (!intact(element, in.number(4)))
            damaged(std::string("the checksum of its ") + names[kind] + " does not match");
    }
    // The element before the segments, of so many bytes at most.
    const auto element = [&](const std::string& what, uint64_t most) {
        const size_t start = in.at();
        const auto length = in.varint();
        if (length > most) damaged("its " + what + " cannot be read");
        const View content = in.take(length), whole = in.since(start);
        if (!intact(whole, in.number(4))) damaged("the checksum of its " + what + " does not match");
        return content;
    };
    if (flags & kLossless) {
        if (file.step != 32768 || file.embedded) damaged("its lossless parameters cannot be read");
        file.lossless = element("lossless parameters", kMaxElement);
    } else if (flags & kDeep) {
        file.choice = element("choice of tables", kMaxElement);
    }
    if (file.page) file.layer = element("exact layer", kMaxLong);
    while (file.embedded && in.left()) {
        const View whole = in.take(std::min(in.left(), kPiece + 4));
        View piece = whole.first(std::min(whole.size(), kPiece));
        if (whole.size() > 4) {
            const View inner = whole.first(whole.size() - 4);
            if (intact(inner, Cursor(whole.last(4), {}).number(4)))
                piece = inner;
            else if (whole.size() == kPiece + 4)
                damaged("the checksum of a piece does not match");
        }
        file.stream.insert(file.stream.end(), piece.begin(), piece.end());
    }
    while (in.left()) {
        try {
            const size_t start = in.at();
            const auto units = in.varint(), length = in.varint();
            const View payload = in.take(length), element = in.since(start);
            if (!intact(element, in.number(4)))
                damaged("the checksum of segment " + std::to_string(file.segments.size() + 1) + " does not match");
            if (units < 1) damaged("a segment without coding units");
            if (file.page && units != 1) damaged("a photograph of a page has one coding unit");
            file.segments.push_back({units, payload});
        } catch (const Cursor::Short&) {
            break;  // a prefix
        }
    }
    return file;
}

struct Region {
    uint64_t x, y, width, height;

    bool overlaps(const Region& other) const {
        return x < other.x + other.width && other.x < x + width && y < other.y + other.height &&
               other.y < y + height;
    }
};

// A page: an exact layer, and photographs that take the place of parts of it. All are checked before one is decoded.
class Page {
 public:
    Page(Model& model, const File& file, bool with_symbols)
        : model_(model), file_(file), with_symbols_(with_symbols) {
        const std::string complaint = "the file is damaged: the places of its photographs cannot be read";
        Cursor in(file.layer, complaint);
        const auto count = in.number(1);
        if (count < 1 || count > kMost) throw Damaged(complaint);
        while (places_.size() < count) {
            const auto x = in.varint(), y = in.varint(), width = in.varint(), height = in.varint();
            const Region place{x, y, width, height};
            if (!width || !height || x + width > uint64_t(file.width) || y + height > uint64_t(file.height))
                damaged("a photograph is empty or lies outside the page");
            for (const Region& other : places_)
                if (place.overlaps(other)) damaged("two photographs overlap");
            places_.push_back(place);
        }
        stream_ = in.take(in.left());
        if (file.segments.size() > places_.size()) damaged("it has more photographs than places for them");
        for (const Segment& segment : file.segments) {
            const File part = parse(segment.payload);
            if (part.page || part.embedded || part.lossless || part.deep || part.alpha || part.model != file.model ||
                (file.grey && !part.grey))
                damaged("a photograph is of another kind or model than the page can hold");
            const Region& place = places_[photographs_.size()];
            if (uint64_t(part.width) != place.width || uint64_t(part.height) != place.height)
                damaged("a photograph has another size than its place");
            photographs_.push_back(part);
        }
    }

    Decoded decode() {
        const Bytes layer = unwebp(file_, stream_, "its exact layer");
        Decoded result{Samples(layer.begin(), layer.end()), {}};
        for (size_t k = 0; file_.grey && k < layer.size(); ++k) result.rgb[k] = layer[k / 3 * 3 + 1];
        if (with_symbols_) result.symbols.assign(result.rgb.begin(), result.rgb.end());
        for (size_t k = 0; k < photographs_.size(); ++k) {
            const Region& place = places_[k];
            Model& model = model_.of_axes(photographs_[k].axes);
            Decoded part = Ordinary(model, photographs_[k], with_symbols_).decode();
            if (photographs_[k].grey) make_grey(part.rgb);
            for (size_t y = 0; y < place.height; ++y)
                std::copy_n(&part.rgb[3 * y * place.width], 3 * place.width,
                            &result.rgb[3 * ((place.y + y) * file_.width + place.x)]);
            result.symbols.insert(result.symbols.end(), part.symbols.begin(), part.symbols.end());
        }
        return result;
    }

 private:
    static constexpr uint64_t kMost = 64;  // photographs

    Model& model_;
    const File& file_;
    const bool with_symbols_;
    std::vector<Region> places_;
    View stream_;
    std::vector<File> photographs_;
};

struct Picture {
    int width, height;
    bool grey;
    Decoded decoded;
    Bytes alpha;        // empty: opaque
    bool deep = false;  // 16 bits a sample; alpha has 8
};

// The picture of a file; its bundle is opened once the file has been found intact.
Picture decode(const std::string& bundle, View data, bool with_symbols, uint64_t max_pixels) {
    if (is_tiny(data)) {
        Model model(bundle);
        const int tag = data[0] - kTinyTag, number = tag / 2 + 1;
        if (!model.flat || model.tiny != number)
            throw Error("the tiny file needs model number " + std::to_string(number) + ", which is not this one");
        Flat flat(model, 32768 + 3072 + 64 * data[1], data.subspan(2));
        return {model.size, model.size, bool(tag & 1), flat.decode(), {}, false};
    }
    const File file = parse(data);
    if (uint64_t(file.width) * file.height > max_pixels)
        throw Error("the file holds " + std::to_string(file.width) + "x" + std::to_string(file.height) +
                    " pixels, more than the limit of " + std::to_string(max_pixels));
    Picture picture{file.width, file.height, file.grey, {}, {}, file.deep};
    if (file.alpha) {
        const size_t pixels = size_t(file.width) * file.height;
        if (!file.alpha->empty() && file.alpha->front() == kWebpSignature) {
            const Bytes colours = unwebp(file, *file.alpha, "its transparency");
            for (size_t k = 0; k < pixels; ++k) picture.alpha.push_back(colours[3 * k + 1]);
        } else {
            picture.alpha = unzstd(*file.alpha, pixels, "its transparency cannot be decoded");
            for (size_t k = file.width; k < pixels; ++k) picture.alpha[k] += picture.alpha[k - file.width];
        }
    }
    Model model(bundle);
    if (file.model != model.id)
        throw Error("the file was made with model " + hexadecimal(file.model) + ", not with " + hexadecimal(model.id));
    if (model.flat) {
        const bool stepped = file.tuning || file.offsets || file.shifts;
        const bool special =
            stepped || file.embedded || file.lossless || file.deep || file.luma || file.page;
        const bool fits = file.width == model.size && file.height == model.size && !special;
        if (!fits || file.segments.size() > 1) damaged("this model does not make such files");
        Streams(model.tables, file.segments, model.blocks.size() + 1);  // refuses more units
        const auto stream = file.segments.empty() ? std::nullopt : std::optional(file.segments[0].payload);
        picture.decoded = Flat(model, file.step, stream).decode();
    } else if (file.page) {
        picture.decoded = Page(model, file, with_symbols).decode();
    } else if (file.lossless) {
        picture.decoded = Lossless(model, file).decode();
    } else if (file.embedded) {
        picture.decoded = Embedded(model, file, with_symbols).decode();
    } else {
        picture.decoded = Ordinary(model.of_axes(file.axes), file, with_symbols).decode();
    }
    return picture;
}

// A file that has its name only when it is whole; devices and pipes are written to as they are, links stay links.
class Output {
 public:
    explicit Output(const std::string& path) : path_(path) {
        namespace fs = std::filesystem;
        std::error_code ignored;
        if (fs::is_symlink(path, ignored) && fs::is_regular_file(path, ignored)) path_ = fs::canonical(path);
        if (!fs::is_other(path, ignored)) partial_ = path_ + "." + std::to_string(std::random_device{}()) + ".partial";
        file_ = partial_.empty() ? std::fopen(path.c_str(), "wb") : std::fopen(partial_.c_str(), "wbx");
        if (!file_) throw Error(path + ": it cannot be written");
    }

    Output(const Output&) = delete;

    ~Output() {
        if (file_) std::fclose(file_);
        std::error_code ignored;
        if (!partial_.empty()) std::filesystem::remove(partial_, ignored);
    }

    FILE* file() { return file_; }

    void close() {
        const bool bad = std::ferror(file_) != 0, unwritten = std::fclose(file_) != 0;
        file_ = nullptr;
        if (bad || unwritten) throw Error(path_ + ": it cannot be written");
    }

    void rename() {
        if (partial_.empty()) return;
        std::error_code error;
        std::filesystem::rename(partial_, path_, error);
        if (error) throw Error(path_ + ": it cannot be written");
        partial_.clear();
    }

 private:
    std::string path_, partial_;
    FILE* file_;
};

// Rows of samples, grey where R = G = B, each in `Sample` with alpha spread over its range.
template <class Sample>
std::vector<uint8_t> interleaved(const Picture& picture) {
    const Samples& rgb = picture.decoded.rgb;
    std::vector<uint8_t> bytes;
    bytes.reserve((rgb.size() + picture.alpha.size()) * sizeof(Sample));
    const auto put = [&](unsigned sample) {
        if (sizeof(Sample) > 1) bytes.push_back(uint8_t(sample >> 8));
        bytes.push_back(uint8_t(sample));
    };
    for (size_t k = 0; k < rgb.size() / 3; ++k) {
        const uint16_t* pixel = &rgb[3 * k];
        if (picture.grey)
            put((pixel[0] + pixel[1] + pixel[2] + 1) / 3);  // rounded mean
        else
            for (int c = 0; c < 3; ++c) put(pixel[c]);
        if (!picture.alpha.empty()) put(picture.alpha[k] * (sizeof(Sample) > 1 ? 257 : 1));
    }
    return bytes;
}

// Writes rows; false after an error of libpng, which comes back by a jump: nothing here has a destructor.
bool wrote(png_structp png, png_infop info, FILE* file, const Picture& picture, const Bytes& samples) {
    if (setjmp(png_jmpbuf(png))) return false;
    const int kind = (picture.grey ? 0 : PNG_COLOR_MASK_COLOR) | (picture.alpha.empty() ? 0 : PNG_COLOR_MASK_ALPHA);
    png_init_io(png, file);
    png_set_IHDR(png, info, png_uint_32(picture.width), png_uint_32(picture.height), picture.deep ? 16 : 8, kind,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int y = 0; y < picture.height; ++y) png_write_row(png, &samples[samples.size() / picture.height * y]);
    png_write_end(png, info);
    return true;
}

void write_png(Output& out, const Picture& picture) {
    const Bytes samples = picture.deep ? interleaved<uint16_t>(picture) : interleaved<uint8_t>(picture);
    std::string reason = "libpng has no memory";
    const auto fail = [](png_structp png, png_const_charp why) {
        *static_cast<std::string*>(png_get_error_ptr(png)) = why;
        png_longjmp(png, 1);
    };
    const auto ignore = [](png_structp, png_const_charp) {};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &reason, fail, ignore);
    png_infop info = png ? png_create_info_struct(png) : nullptr;
    const bool good = info && wrote(png, info, out.file(), picture, samples);
    png_destroy_write_struct(&png, &info);
    if (!good) throw Error("the picture cannot be written: " + reason);
}

void write_symbols(Output& out, const std::vector<int32_t>& symbols) {
    Bytes bytes;
    bytes.reserve(4 * symbols.size());
    for (const int32_t symbol : symbols)
        for (int k = 0; k < 4; ++k) bytes.push_back(uint8_t(uint32_t(symbol) >> 8 * k));
    std::fwrite(bytes.data(), 1, bytes.size(), out.file());
}

// Whether two names, or links, are one file; devices and pipes may well be read and written at once.
bool same(const std::string& one, const std::string& other) {
    namespace fs = std::filesystem;
    std::error_code ignored;
    if (fs::exists(one, ignored) || fs::exists(other, ignored))
        return fs::is_regular_file(one, ignored) && fs::equivalent(one, other, ignored);
    return fs::absolute(one).lexically_normal() == fs::absolute(other).lexically_normal();
}

void run(const std::vector<std::string>& paths, const std::string& symbols_path, uint64_t max_pixels) {
    const auto keep = [](const std::string& output, const std::string& other, const char* what) {
        if (same(output, other)) throw Error(output + " is " + what + "; choose another output");
    };
    for (const std::string& output : {paths[2], symbols_path}) {
        if (output.empty()) continue;
        keep(output, paths[0], "the bundle itself");
        keep(output, paths[1], "the input itself");
    }
    if (!symbols_path.empty()) keep(symbols_path, paths[2], "what the picture is written to");
    const Bytes data = from_text(read_file(paths[1]));
    const Picture picture = decode(paths[0], data, !symbols_path.empty(), max_pixels);
    Output png(paths[2]);
    write_png(png, picture);
    png.close();
    if (!symbols_path.empty()) {
        Output symbols(symbols_path);
        write_symbols(symbols, picture.decoded.symbols);
        symbols.close();
        symbols.rename();
    }
    png.rename();
}

}  // namespace

int main(int argc, char** argv) {
#ifdef __GLIBC__  // else every run of a net takes its memory anew from the system, page by page
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
    std::vector<std::string> paths;
    std::string symbols;
    uint64_t max_pixels = kMaxPixels;
    bool wrong = false;
    for (int k = 1; k < argc; ++k) {
        const std::string argument = argv[k];
        if (!argument.starts_with("--")) {
            paths.push_back(argument);
            continue;
        }
        const std::string value = k + 1 < argc ? argv[++k] : "";
        if (argument == "--symbols") symbols = value;
        if (argument == "--max-pixels") max_pixels = std::strtoull(value.c_str(), nullptr, 10);
        const bool whole = value.find_first_not_of("0123456789") == std::string::npos && max_pixels > 0;
        wrong |= value.empty() || !(argument == "--symbols" || (argument == "--max-pixels" && whole));
    }
    if (wrong || paths.size() != 3) {
        std::cerr << "usage: eocodec_decode BUNDLE.eocm FILE.eoc OUT.png [--symbols FILE] [--max-pixels N]\n";
        return 2;
    }
    std::string problem;
    try {
        run(paths, symbols, max_pixels);
        return 0;
    } catch (const Ort::Exception& e) {
        problem = std::string("the model bundle's graphs cannot be run: ") + e.what();
        for (char& c : problem)  // it may quote the graph
            if (c != '\n' && (c < ' ' || c > '~')) c = '?';
    } catch (const std::bad_alloc&) {
        problem = "there is not enough memory for this picture";
    } catch (const std::exception& e) {
        problem = e.what();
    }
    std::cerr << "eocodec_decode: " << problem.substr(0, problem.find('\n')) << "\n";
    return 1;
}
