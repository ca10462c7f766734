"""The words in the name of a file or folder. Names that cameras, programs and web sites give hold none."""

import re
import urllib.parse

# Words that say nothing about a picture, if a name holds no others.
_WORDS = """
    image images img imgs picture pictures pic pics photo photos frame frames file files untitled unnamed unknown
    download downloads downloaded scan scans scanned screenshot screenshots screen shot snapshot snap capture captured
    webcam camera cam video vid movie clip dsc dscn dscf dcim pxl mvimg mvi gopr gopro gx dji sam imag cimg imgp pict
    sany rimg kimg hpim sdc mg apple android iphone ipad canon nikon sony fuji fujifilm olympus panasonic whatsapp
    telegram signal snapchat facebook fb instagram twitter reddit pinterest tumblr discord tiktok flickr received
    media pexels pixabay unsplash shutterstock istock istockphoto gettyimages adobestock stock comfyui txt img2img
    txt2img automatic webui midjourney dalle output outputs result results render renders rendered sample samples
    generated export exports exported final copy of edited edit crop cropped resized resize scaled thumb thumbnail
    thumbnails small medium large original originals raw new old misc other others various data dataset datasets
    database collection album albums gallery folder batch part page slide sheet document doc attachment upload uploads
    uploaded tmp temp test train training validation valid val dev testing set split class label labels n at am pm jpg
    jpeg png gif webp bmp tif tiff heic shard shards chunk chunks wds min max hd uhd px x fold
    bild bilder foto fotos imagen imagenes imagem immagine afbeelding obraz kuva zdjęcie изображение фото resim
    写真 画像 图片 照片 圖片 사진 이미지 bildschirmfoto d'écran d’écran captura pantalla tela ecrã schermata
    schermafbeelding skärmavbild skærmbillede skjermbilde näyttökuva zrzut ekranu snímek obrazovky снимок экрана
    ekran resmi görüntüsü スクリーンショット 屏幕截图 截图 截屏 螢幕截圖 스크린샷 微信图片 qq图片 mmexport
    unbenannt sans titre sin título titolo senza безымянный 未命名 無題 무제 제목 없음
    jpegimages segmentationclass segmentationobject
    kopie copie copia kopia копия von de di da コピー 副本 복사본
"""
_SAY_NOTHING = frozenset(_WORDS.split())
# Words that say as little in the name of a file, and may be the name of a class.
_FILE_WORDS = """
    viber wechat wx messenger linkedin chatgpt dall·e flux schnell kontext krea turbo sdxl qwen hunyuan fooocus invokeai
    ezgif vlcsnap fullsizerender photogrid inshot snapseed vsco camscanner picsart beautyplus lightroom photoshop
    picker project depositphotos pdf fx kif yun cci seed iter gen aligned item patch tile coco ilsvrc imagenet
    creation collage rotated flipped augmented aug hash step epoch rank grid seite win pro um à в
"""
_FILES_SAY_NOTHING = _SAY_NOTHING.union(_FILE_WORDS.split())
_COUNTED = frozenset(("frame", "img", "image", "pic", "photo", "page", "slide", "scan", "view", "cam"))      # frame0012
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_MONTH = """(?:jan(?:uary|uar|vier)?|feb(?:ruary|ruar)?|février|mar(?:ch|s|zo)?|märz|apr(?:il)?|avril|abril|may|mai|mayo
    |june?|juni|juin|junio|july?|juli|juillet|julio|aug(?:ust)?|août|agosto|sept?(?:ember|embre|iembre)?|oct(?:ober|obre)?
    |okt(?:ober)?|octubre|nov(?:ember|embre|iembre)?|dec(?:ember)?|dez(?:ember)?|décembre|diciembre|enero|ene|febrero)"""
_DATE = re.compile(rf"""(?<![^\W\d_])(?:{_MONTH}[\s_.,-]*(?:\d{{1,2}}[\s_.,-]+)?(?:19|20)\d\d(?!\d)
    |(?:19|20)\d\d[\s_.-]+{_MONTH}(?![^\W\d_])|\d\d[\s_.-]+{_MONTH}$)""", re.IGNORECASE | re.VERBOSE)
# Of programs whose names hold words that may also be those of a class.
_PROGRAMS = re.compile(r"comfyui_temp_[a-z]{5}(?=_)|^telegram-cloud-\w+-size-\d+-\d+-[a-z]$|"
                       r"^screenshot[ _-]\d{4}.*|gemini[ _-]generated[ _-]image|(?<![^\W\d_])grok[ _-]image|"
                       r"^dall[·.-]?e(?![^\W\d_])|^photo on(?= \d)", re.IGNORECASE)
# PXL_20230115_101112345.NIGHT, IMG-20230101-WA0001, IMG_1234_HDR, DJI_0001_W: capitals behind the number are marks.
_CAMERAS = re.compile(r"(?:PXL|IMG|VID|MVIMG|DJI|DSC|GOPR)[-_]E?\d{4}(?:[A-Z\d._~()-]*$)?")
_SETTINGS = re.compile(r"[\s_]--[a-z]+(?=[\s_]|$).*")                        # a_red_car_--ar_16_9: of the generator
_HEX = re.compile(r"(?=[a-f]*\d)(?![a-f]{3,}\d+$)[0-9a-f]{6,}", re.IGNORECASE)       # but face0001
_NUMBER_BETWEEN = re.compile(r"[^\W\d_]{3,}\d{1,2}[^\W\d_]{3,}\d*")      # grass2dirt
_SEPARATORS = re.compile(r"[\s_\-.,;+()\[\]{}#@!=&~]+")
_TWO_WORDS = re.compile(r"(?<=[A-Za-z][a-z]{2})(?=[A-Z][a-z]{2})")             # RedCar


def words_of_name(name: str, *, numbers: bool = False) -> str:
    """The words of a file's or folder's name, without counters, dates, hashes and names of cameras; "" without any.

    numbers: keep the digits at the end of a word. 'IMG_2041' → '', 'red_car-0012' → 'red car'.
    """
    if re.search(r"[-_ ]unsplash\b", name, re.IGNORECASE):              # a photographer's name
        return ""
    words = []
    name = urllib.parse.unquote(name)
    name = name[match.end():] if (match := _CAMERAS.match(name)) else name
    for meaningless, replacement in ((_SETTINGS, ""), (_UUID, " "), (_DATE, " "), (_PROGRAMS, " ")):
        name = meaningless.sub(replacement, name)
    for token in _SEPARATORS.split(name):
        word = token if numbers else re.sub(r"\d+$", "", token)
        is_counter = not numbers and word != token and word.lower() in _COUNTED
        if not word or word[0].isdigit() or is_counter or _HEX.fullmatch(token) or _is_random(token):
            continue
        words.append(word)
    nothing = _SAY_NOTHING if numbers else _FILES_SAY_NOTHING
    says_nothing = all(re.sub(r"\d+$", "", word).lower() in nothing for word in words)
    return "" if says_nothing else " ".join(_TWO_WORDS.sub(" ", word) for word in words)


def _is_random(token: str) -> bool:
    """Whether letters and digits alternate as in no word: 'EaXbQ3kWo', 'n02085620'."""
    if _NUMBER_BETWEEN.fullmatch(token) and (token.islower() or token.isupper()):
        return False
    changes = len(re.findall(r"(?<=\d)[^\W\d_]|(?<=[^\W\d_])\d", token))
    return changes >= 2 or bool(re.fullmatch(r"[^\W\d_]\d{4,}", token))
