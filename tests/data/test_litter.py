"""Files that other programs leave among pictures are skipped by name and counted; nothing else is."""

import pytest
from picture_folders import captions_of
from source_files import png, write_zip

from diffuse_cli.data.captions import find_pictures
from diffuse_cli.data.litter import is_conflict_copy, litter_label
from diffuse_cli.data.remarks import describe_litter

_LITTER = """
    __MACOSX .DS_Store ._a.jpg .Trash-1000 .Trashes .Spotlight-V100 .fseventsd .TemporaryItems .AppleDouble
    .DocumentRevisions-V100 $RECYCLE.BIN $Recycle.bin RECYCLER Thumbs.db thumbs.db ehthumbs.db ehthumbs_vista.db
    desktop.ini Desktop.ini @eaDir #recycle #snapshot @Recycle @Recently-Snapshot .@__thumb @tmp .thumbnails .thumb
    .thumbs .xvpics lost+found LOST.DIR found.000 FOUND.001 .stfolder .stversions .sync .dropbox .dropbox.cache
    .tmp.drivedownload .tmp.driveupload .ipynb_checkpoints __pycache__ .git .svn .picasaoriginals Picasa.ini .picasa.ini
    .nomedia CaptureOne .comments .dtrash ZbThumbnail.info pspbrwse.jbf .nfs000123 .fuse_hidden0001 ~snapshot
    SYNOFILE_THUMB_M.jpg SYNOPHOTO_THUMB_XL.jpg SYNOPHOTO_FILM_H.mp4 AlbumArtSmall.jpg :2eDS_Store _gsdata_ SyncDebris
    a.jpg.part a.jpg.crdownload a.jpg.download a.partial a.tmp a.jpg.aria2 ~$a.png ~syncthing~a.jpg.tmp a.jpg.!ut
    a.jpg:Zone.Identifier a.jpg.Zone.Identifier Thumbs.db:encryptable _vti_cnf $WinREAgent
    @__thumb a.jpg.aria2__temp a.png.sb-1a2b3c4d-AbCdEf
    Catalog.lrdata @GMT-2024.01.01-00.00.00 .trashed-1700000000-a.jpg .pending-1700000000-a.jpg
"""
_PICTURES = """
    thumbnails thumbs recycled recycling trash Trash git sync part download tmp cache lost found originals comments
    a.jpg MACOSX Thumbs.jpg desktop.png partial.png a@2x.png #1.png $5.png ~a.png (1).jpg part.1.jpg
    CaptureOne.jpg AlbumArt.jpg
"""
LITTER, PICTURES = _LITTER.split(), _PICTURES.split()


@pytest.mark.parametrize("name", [*LITTER, "System Volume Information", "Network Trash Folder", "Temporary Items",
                                  "AlbumArt_{0F1A}_Large.jpg", "iPod Photo Cache", "Icon\r", "Adobe Bridge Cache.bc"])
def test_names_of_other_programs(name):
    assert litter_label(name)


@pytest.mark.parametrize("name", PICTURES)
def test_names_of_pictures_and_classes(name):
    assert litter_label(name) is None


def test_litter_is_skipped_at_any_depth_and_counted(folder):
    root = folder({"a.png": None, "b/c.png": None, "@eaDir/a.png/SYNOFILE_THUMB_M.jpg": None, "b/@eaDir/x.jpg": None,
                   "b/@eaDir/y/z.jpg": None, "._a.png": None, "b/._c.png": None, "Thumbs.db": None,
                   "d.png.crdownload": None, ".git/objects/1": "", ".hidden.png": None})
    found = find_pictures(root)
    assert [picture.name for picture in found.pictures] == ["a.png", "b/c.png"]
    assert dict(found.litter) == {"@eaDir": 3, "._*": 2, "Thumbs.db": 1, "partial downloads": 1, ".git": 1, ".*": 1}
    assert (found.unusable, found.caption_problems) == ((), ())
    assert describe_litter(found.litter).startswith("skipped 9 files of other programs: @eaDir 3, ._* 2, ")


def test_many_kinds_of_litter_are_told_briefly():
    litter = [(f"kind{index}", 20 - index) for index in range(9)]
    assert describe_litter(litter).endswith("kind5 15, others 39")
    assert describe_litter([("._*", 1)]) == "skipped 1 file of other programs: ._* 1"


_COPIES = """
    {}~ {}.bak {}.BAK {}.bak2 {}.backup {}.old {}.orig {}.original {}.save {}.~1~ #{}# {}_original
"""


@pytest.mark.parametrize("copy", _COPIES.split())
@pytest.mark.parametrize("pack", [None, "zip"])
def test_copies_that_editors_keep_are_skipped_and_counted_where_the_file_is_there(folder, tmp_path, copy, pack):
    files = {"b/1.png": png(1), "b/1.txt": b"a red car", f"b/{copy.format('1.png')}": png(2),
             f"b/{copy.format('1.txt')}": b"a blue bus"}
    root = folder(files)
    if pack:
        write_zip(root := tmp_path / "a.zip", files)
    found = find_pictures(root)
    assert captions_of(found) == {"b/1.png": ("a red car",)}
    assert found.litter == (("backup copies", 2),)
    assert found.notes == found.warnings == found.caption_problems == ()


@pytest.mark.parametrize("name", ["1.png.bak", "1.bak", "1.png~", "1.orig", "1.png.old", "1_original.png"])
def test_a_copy_without_the_file_itself_is_a_picture_by_its_contents(folder, name):
    found = find_pictures(folder({"0.png": png(0), name: png(1), "0.old/2.png": png(2)}))
    assert [picture.name for picture in found.pictures] == sorted(["0.png", "0.old/2.png", name])
    assert found.litter == ()


def test_an_older_text_of_a_picture_is_named_if_it_is_the_only_one(folder):
    found = find_pictures(folder({"1.png": png(1), "1.txt.bak": "a red car"}))
    assert found.warnings == ("1.txt.bak lies beside a picture and is not used; --caption-ext .bak would read a "
                              "caption from it",)


def test_the_folder_itself_may_have_any_name(folder):
    root = folder({".thumbnails/a.png": None})
    assert len(find_pictures(root / ".thumbnails").pictures) == 1


def test_links_to_litter_are_counted_and_not_followed(folder):
    root = folder({"a.png": None, "elsewhere/b.png": None})
    (root / ".cache").symlink_to(root / "elsewhere")
    assert dict(find_pictures(root).litter) == {".*": 1}


def test_pictures_that_are_still_in_icloud_are_named(folder):
    root = folder({"a.png": None, "b/.c.jpg.icloud": "bplist00", ".notes.txt.icloud": "bplist00"})
    found = find_pictures(root)
    assert found.unusable == (("b/c.jpg", "not downloaded from iCloud"),)
    assert found.litter == ()


@pytest.mark.parametrize("name", [
    "a (Anna's conflicted copy 2020-01-31).jpg", "a (conflicted copy 2024-05-01 101010).png",
    "a.sync-conflict-20240101-120000-ABCDEFG.jpg", "a_conflict-20200131-101010.jpg", "a [Conflict].jpg",
    "a (Case Conflict).jpg", "a (SFConflict anna@x.org 2020-01-31-10-10-10).jpg", "a_conflict1.jpg"])
def test_conflict_copies(name):
    assert is_conflict_copy(name)
    assert litter_label(name) is None           # they are pictures


@pytest.mark.parametrize("name", ["conflict.jpg", "a conflict of interest.jpg", "a (1).jpg", "a copy.jpg",
                                  "armed-conflict-2020.jpg"])
def test_no_conflict_copies(name):
    assert not is_conflict_copy(name)
